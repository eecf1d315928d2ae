"""The HTML page in a real browser: it needs no network, works by keyboard, and is readable for everybody."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from axe_core_python.selenium import Axe
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select, WebDriverWait

from benchmarks.separate_project import ROOT, write_params
from tests.support.measured_project import TOP1, measured_params, write_confusions, write_project
from tests.support.project import once_per_run, run_moonshine

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's chromium and chromium-driver")
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
DRAWN = "return document.documentElement.dataset.drawn === 'yes'"
Browser = webdriver.Chrome


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(folder: Path) -> None:
        project = write_project(folder)
        (project / "results/toy/metrics/train/student.json").unlink()
        run_moonshine("report", "--partial", cwd=project)

    return once_per_run(tmp_path_factory, "measured", make) / "results/toy/report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    profile = tmp_path_factory.mktemp("profile")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", *QUIET, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: Browser, page: Path) -> Browser:
    """The page, drawn, in a desktop window with a light theme."""
    return opened(chromium, page)


def opened(browser: Browser, page: Path, width: int = 1200, theme: str = "light") -> Browser:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    scheme = {"name": "prefers-color-scheme", "value": theme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get(page.as_uri())
    WebDriverWait(browser, 600).until(lambda browser: browser.execute_script(DRAWN))
    return browser


def column(browser: Browser, index: int) -> list[str]:
    cells = browser.find_elements(By.CSS_SELECTOR, f"table.sortable tbody tr > :nth-child({index + 1})")
    return [cell.text for cell in cells]


def heading(browser: Browser, index: int) -> Any:
    return browser.find_elements(By.CSS_SELECTOR, "table.sortable thead th")[index]


def marks(browser: Browser, chart: str) -> int:
    return len(browser.find_elements(By.CSS_SELECTOR, f'[data-chart="{chart}"] .mark-symbol.role-mark path'))


def test_the_page_is_one_small_file_that_asks_for_no_other(page: Path, browser: Browser) -> None:
    assert page.stat().st_size < 5e6
    assert browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)") == []
    assert browser.get_log("browser") == []


def test_every_figure_is_drawn(browser: Browser) -> None:
    charts = browser.find_elements(By.CSS_SELECTOR, "[data-chart]")
    assert len(charts) == 5
    for chart in charts:
        drawing = chart.find_element(By.TAG_NAME, "svg")
        assert drawing.size["width"] > 300
        assert drawing.size["height"] > 60
        assert len(drawing.find_elements(By.TAG_NAME, "path")) > 3


def test_a_heading_sorts_by_mouse_and_by_keyboard_and_rows_that_have_not_run_stay_last(browser: Browser) -> None:
    assert column(browser, 0) == ["Teacher", "From scratch", "Student"]
    error = heading(browser, 3)
    error.find_element(By.TAG_NAME, "button").click()
    assert error.get_attribute("aria-sort") == "ascending"
    assert column(browser, 0) == ["Teacher", "Student", "From scratch"]
    error.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert error.get_attribute("aria-sort") == "descending"
    assert column(browser, 0) == ["Student", "Teacher", "From scratch"]
    assert column(browser, 3) == ["7.00 ± 1.05", "2.03 ± 0.15", "not run"]
    heading(browser, 0).find_element(By.TAG_NAME, "button").click()
    assert error.get_attribute("aria-sort") == "none"
    assert column(browser, 0) == ["From scratch", "Student", "Teacher"]


@pytest.mark.parametrize("choice", ["networks", "methods"])
def test_networks_and_methods_can_be_taken_out_of_the_figures(choice: str, browser: Browser) -> None:
    assert marks(browser, "error-against-parameters") == 2
    browser.find_element(By.CSS_SELECTOR, f"#{choice} input").send_keys(Keys.SPACE)
    WebDriverWait(browser, 600).until(lambda browser: marks(browser, "error-against-parameters") == 1)
    all_of_them, none = browser.find_elements(By.CSS_SELECTOR, f"#{choice} button")
    all_of_them.click()
    WebDriverWait(browser, 600).until(lambda browser: marks(browser, "error-against-parameters") == 2)
    none.click()
    WebDriverWait(browser, 600).until(lambda browser: marks(browser, "error-against-parameters") == 0)


def test_what_is_taken_out_leaves_no_empty_panel(browser: Browser) -> None:
    panels = "[data-chart=training-curves] .role-scope"
    before = len(browser.find_elements(By.CSS_SELECTOR, panels))
    browser.find_element(By.CSS_SELECTOR, "#networks input").send_keys(Keys.SPACE)
    WebDriverWait(browser, 600).until(lambda browser: len(browser.find_elements(By.CSS_SELECTOR, panels)) < before)


def test_curves_show_the_chosen_images(browser: Browser) -> None:
    lines = "[data-chart=training-curves] .mark-line.role-mark path"
    assert len(browser.find_elements(By.CSS_SELECTOR, lines)) == 4
    Select(browser.find_element(By.ID, "on")).select_by_visible_text("training images")
    WebDriverWait(browser, 600).until(lambda browser: len(browser.find_elements(By.CSS_SELECTOR, lines)) == 2)


def test_a_card_says_of_which_networks_its_number_is(browser: Browser) -> None:
    cards = [card.text for card in browser.find_elements(By.CSS_SELECTOR, ".cards li")]
    assert "mean ± standard deviation over 3 seeds; seed 0, which taught: 2.00 %" in cards[0]
    assert "not run" in cards[1]
    assert cards[2].endswith("Student: 3.00k parameters, 30.0k MACs")


CUT_OFF = """
return [...document.querySelectorAll("[data-chart] svg")].flatMap((svg) => {
  const whole = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].filter((text) => text.getBoundingClientRect().width);
  const cut = texts.filter((text) => {
    const box = text.getBoundingClientRect();
    const across = box.left < whole.left - 1 || box.right > whole.right + 1;
    return across || box.top < whole.top - 1 || box.bottom > whole.bottom + 1;
  });
  return [...cut.map((text) => text.textContent), ...(whole.right > innerWidth ? [`${whole.right} px`] : [])];
});
"""


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of this project's own experiment of 13 rows, one of which has a long title."""

    def make(folder: Path) -> None:
        params = yaml.safe_load((ROOT / "experiments/wrn-fashion-mnist.yaml").read_text())
        params["titles"]["distil/at/wrn-16-2-bg-2-m"] = (
            "WRN-16-2 with bottlenecks and depthwise convolutions, by attention"
        )
        write_params(folder, params)
        shutil.copytree(ROOT / "results/wrn-fashion-mnist", folder / "results/wrn-fashion-mnist")
        run_moonshine("report", cwd=folder)

    return once_per_run(tmp_path_factory, "crowded", make) / "results/wrn-fashion-mnist/report.html"


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_cut_off_and_what_is_wider_than_the_window_says_so(
    width: int, chromium: Browser, crowded: Path
) -> None:
    browser = opened(chromium, crowded, width)
    assert browser.execute_script(CUT_OFF) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    parts = [part for part in browser.find_elements(By.CSS_SELECTOR, ".scroll") if part.is_displayed()]
    wider = [
        browser.execute_script("return arguments[0].scrollWidth - arguments[0].clientWidth > 1", part) for part in parts
    ]
    hints = "return arguments[0].parentElement.previousElementSibling"
    assert [browser.execute_script(hints, part).is_displayed() for part in parts] == wider
    assert wider[0] == (width == 390)


@pytest.fixture(scope="module")
def of_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with the errors of as many classes as are drawn, with long names."""

    def make(folder: Path) -> None:
        project = write_project(folder)
        names = [f"a breed of dog with a long name, number {number}" for number in range(20)]
        counts = {pair: 40 for name in names for pair in ((name, name), (name, names[0]))}
        write_confusions(project, {row: dict.fromkeys(("0", "1", "2"), counts) for row in TOP1})
        run_moonshine("report", cwd=project)

    return once_per_run(tmp_path_factory, "of_classes", make) / "results/toy/report.html"


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_errors_by_class_are_legible(width: int, theme: str, chromium: Browser, of_classes: Path) -> None:
    browser = opened(chromium, of_classes, width, theme)
    drawing = browser.find_element(By.CSS_SELECTOR, '[data-chart="confusion"] svg')
    assert len(drawing.find_elements(By.CSS_SELECTOR, ".mark-rect.role-mark path")) == 20 + 19
    assert browser.execute_script(CUT_OFF) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert Axe().run(browser)["violations"] == []


@pytest.mark.parametrize(("width", "theme"), [(1200, "light"), (1200, "dark"), (390, "light")])
def test_it_is_accessible(width: int, theme: str, chromium: Browser, page: Path) -> None:
    browser = opened(chromium, page, width, theme)
    for details in browser.find_elements(By.TAG_NAME, "summary"):
        details.click()
    violations = Axe().run(browser)["violations"]
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in violations] == []
    overflow = browser.execute_script("return document.documentElement.scrollWidth - innerWidth")
    assert overflow <= 0


def test_it_prints_without_its_controls(browser: Browser) -> None:
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        assert not browser.find_element(By.TAG_NAME, "nav").is_displayed()
        assert not browser.find_element(By.TAG_NAME, "fieldset").is_displayed()
        pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {})["data"])
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000


def test_a_page_of_an_experiment_that_never_ran_works_too(chromium: Browser, tmp_path: Path) -> None:
    write_params(tmp_path, measured_params())
    run_moonshine("report", "--partial", cwd=tmp_path)
    chromium.get((tmp_path / "results/toy/report.html").as_uri())
    heading(chromium, 5).find_element(By.TAG_NAME, "button").click()
    assert column(chromium, 0)[0] == "Student"
    assert column(chromium, 3) == ["not run"] * 3
    assert Axe().run(chromium)["violations"] == []
    assert chromium.get_log("browser") == []
