from moonshine.cli import run

run()
