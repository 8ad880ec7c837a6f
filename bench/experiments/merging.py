#!/usr/bin/env python3
"""Merges of two fine-tuned models, the loss along the line between them, and a domain that is taken away.

merging.py BASE DATA OUT: full fine-tuning (or --tuner match:PATTERN, a part of the weights) on English product reviews and on Russian restaurant reviews;
strength and density of each merge are chosen on validation parts, the table is of test parts. Then the Russian task vector is subtracted from the base. OUT/merging.md."""
import itertools

from entrants import folder
from experiment import cambium, options, once, forget_checkpoints, read, reviews, side_by_side, write_text

METHODS = {"task_arithmetic": False, "ties": True, "dare_linear": True}  # whether it has a density
OTHERS = {"novels": ("text_english_novels", "valid.txt.zst"), "C": ("text_c_source", "valid.txt.zst"), "mathematics": ("text_math_latex", "valid.txt.zst")}
LANGUAGES = ("en", "ru")


def numbers(text):
    return [float(x) for x in text.split(",")]


def loss(o, model, text):
    return cambium(o, "eval", model, "--text", text, "--seq", "256")["loss"]


def tune(o, data, language):
    out = o.out / f"{folder(o.tuner)}-{language}"

    def train():
        r = cambium(o, "finetune", o.base, "--tuner", o.tuner, "--data", data[language]["train"], "--steps", o.steps, "--batch", "8", "--seq", "128", "--lr",
                    o.lr, "--out", out)
        forget_checkpoints(out)
        return r

    once(out.with_suffix(".json"), train)
    return out


def merge(o, method, models, settings):
    """The merged model under a name of its settings."""
    out = o.out / "merged" / (method + "".join(f"-{key.split('.')[-1]}{value}" for key, value in settings.items()))
    if not (out / "config.json").exists():
        cambium(o, "merge", "--method", method, "--base", o.base, *models, "--set", *[f"{k}={v}" for k, v in settings.items()], "--out", out)
    return out


def settings_of(method, strength, density):
    s = {"parameters.lambda": strength, "parameters.normalize": "false"}
    if density:
        s["parameters.density"] = density
    if method == "dare_linear":
        s["parameters.rescale"] = "density"  # as the paper divides
    return s


def kept(o, losses, model, part):
    """Of each task's gain, the share that a model has."""
    found = side_by_side(o, lambda l: loss(o, model, o.texts[l][part]), LANGUAGES)
    return [(losses["base", l, part] - x) / (losses["base", l, part] - losses[l, l, part]) for l, x in zip(LANGUAGES, found)]


def merges(o, losses, tuned):
    lines = ["| method | lambda | density | kept of en | kept of ru |", "|---|---|---|---|---|"]
    for method, has_density in METHODS.items():
        def shares(setting):
            name = "-".join(map(str, setting))
            return once(o.out / "merged" / f"{method}-{name}.json",
                        lambda: kept(o, losses, merge(o, method, tuned, settings_of(method, *setting)), "valid"))

        settings = list(itertools.product(numbers(o.strengths), numbers(o.densities) if has_density else [None]))
        best = max(settings, key=lambda s: min(shares(s)))
        en, ru = kept(o, losses, merge(o, method, tuned, settings_of(method, *best)), "test")
        lines.append(f"| {method} | {best[0]} | {best[1] or ''} | {100 * en:.1f}% | {100 * ru:.1f}% |")
        print(lines[-1], flush=True)
    return lines


def connection(o, tuned):
    def curve(language):
        return cambium(o, "merge", "--connect", *tuned, "--text", o.texts[language]["valid"], "--seq", "256", "--out", o.out / f"connect-{language}")

    lines = []
    for language, r in zip(LANGUAGES, side_by_side(o, curve, LANGUAGES)):
        lines.append(f"{language}: " + " ".join(f"{p['loss']:.3f}" for p in r["points"]) + f", barrier {r['barrier']:.3f}")
    return lines


def negation(o, tuned):
    """The strength is the largest under which the first halves of the other domains' texts change by at most 1%."""
    halves = {}
    for name, place in OTHERS.items():
        text = read(o.data.joinpath(*place))[: 2 * o.characters]
        halves[name] = [write_text(o.out / "data" / f"{name}-{i}.txt", part) for i, part in enumerate((text[: o.characters], text[o.characters :]))]
    halves["reviews_en"] = [o.texts["en"]["valid"], o.texts["en"]["test"]]
    halves["reviews_ru"] = [o.texts["ru"]["valid"], o.texts["ru"]["test"]]

    before = {}

    def changes(model, half):
        if half not in before:
            before[half] = side_by_side(o, lambda n: loss(o, o.base, halves[n][half]), halves)
        after = side_by_side(o, lambda n: loss(o, model, halves[n][half]), halves)
        return {n: x / y - 1 for n, x, y in zip(halves, after, before[half])}

    best, least = None, float("inf")
    for strength in numbers(o.negations):
        model = merge(o, "task_arithmetic", [tuned[1]], {"parameters.lambda": -strength, "parameters.normalize": "false"})
        found = once(o.out / "merged" / f"negation-{strength}.json", lambda: changes(model, 0))
        print(strength, found, flush=True)
        worst = max(abs(c) for n, c in found.items() if n != "reviews_ru")
        if worst <= 0.01 or worst < least and best is None:
            best, least = (strength, model), worst
    found = changes(best[1], 1)
    return [f"lambda -{best[0]}: change of the loss: " + ", ".join(f"{n} {100 * c:+.2f}%" for n, c in found.items())]


def main():
    o = options(__doc__, tuner="full", steps=60, lr=3e-4, characters=20000, strengths="0.8,1.0,1.2", densities="0.5,0.9", negations="0.25,0.5,1.0")
    o.texts = {language: reviews(o, language, o.characters) for language in LANGUAGES}
    tuned = side_by_side(o, lambda l: tune(o, o.texts, l), LANGUAGES)
    models = {"base": o.base, **dict(zip(LANGUAGES, tuned))}
    keys = [(m, l, part) for m in models for l in LANGUAGES for part in ("valid", "test")]
    losses = dict(zip(keys, side_by_side(o, lambda k: loss(o, models[k[0]], o.texts[k[1]][k[2]]), keys)))
    lines = ["| model | loss of reviews_en | of reviews_ru |", "|---|---|---|"]
    lines += [f"| {m} | {losses[m, 'en', 'test']:.4f} | {losses[m, 'ru', 'test']:.4f} |" for m in models]
    lines += ["", *merges(o, losses, tuned), "", *connection(o, tuned), "", *negation(o, tuned)]
    write_text(o.out / "merging.md", "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
