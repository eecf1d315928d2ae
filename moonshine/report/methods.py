"""What students minimise, in words with sources."""

from collections.abc import Iterator

from moonshine.params import Method, Params
from moonshine.runtime.words import counted

TITLE = "What students minimise"


def objectives(params: Params) -> list[tuple[str, str]]:
    """(method, what it minimises), if one does more than attention transfer and knowledge distillation as in their
    papers; else nothing.
    """
    used = {key: params.methods[key] for key in params.used_methods}
    return [(key, _in_words(method)) for key, method in used.items()] if any(map(_is_told, used.values())) else []


def _is_told(method: Method) -> bool:
    return any(key is not None for key in (method.cross_entropy, method.dist, method.dkd, method.ttm)) or bool(
        method.standardise_logits
    )


def _in_words(method: Method) -> str:
    weight = method.weight_of_labels
    terms = [f"{_times(weight)}cross-entropy"] if weight else []
    standardised = " of standardised logits (Sun et al. 2024)" if method.standardise_logits else ""
    return " + ".join([*terms, *(f"{term}{standardised}" for term in _of_logits(method)), *_of_attention(method)])


def _of_logits(method: Method) -> Iterator[str]:
    if method.alpha is not None:
        yield f"{_times(method.alpha)}knowledge distillation (Hinton et al. 2015) at temperature {method.temperature:g}"
    if dist := method.dist:
        both = f"({_times(dist.beta)}inter + {_times(dist.gamma)}intra)"
        yield f"DIST {both} (Huang et al. 2022) at temperature {dist.temperature:g}"
    if dkd := method.dkd:
        both = f"({_times(dkd.alpha)}target + {_times(dkd.beta)}other)"
        warmup = f" after a warm-up of {counted(dkd.warmup_epochs, 'epoch')}" if dkd.warmup_epochs else ""
        yield f"DKD {both} (Zhao et al. 2022) at temperature {dkd.temperature:g}{warmup}"
    if ttm := method.ttm:
        which = "WTTM" if ttm.weighted else "TTM"
        yield f"{_times(ttm.weight)}{which} (Zheng and Yang 2024) with exponent {ttm.exponent:g}"


def _of_attention(method: Method) -> Iterator[str]:
    if method.beta is not None:
        betas = method.beta if isinstance(method.beta, list) else [method.beta]
        yield f"{'/'.join(f'{beta:g}' for beta in betas)} × attention transfer (Zagoruyko and Komodakis 2017)"


def _times(weight: float) -> str:
    return "" if weight == 1 else f"{weight:g} × "
