#!/usr/bin/env python3
"""Writes the Spanish that Debian's packages hold into OUT/spanish, about 10 MB: the Bible of 1909, sayings, handbooks, helps of programs, a game. apt-get
fetches the packages into OUT/packages (120 MB of them, and a game's 150); nothing is installed. Beside what corpus.py writes there it is what a base reads before
Spanish entities.

spanish.py OUT. Wanted: apt-get, dpkg-deb and mod2imp (package libsword-utils)."""
import argparse
import gettext
import html
import os
import re
import subprocess
from pathlib import Path

from experiment import write_text

PACKAGES = ("sword-text-sparv fortunes-es debian-handbook debian-reference-es maint-guide-es debian-edu-doc-es freedombox-doc-es gimp-help-es libreoffice-help-es "
            "wesnoth-1.16-data").split()


def unpacked(folder):
    """Folder of what the packages hold."""
    debs = folder / "packages"
    root = debs / "root"
    root.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        if not list(debs.glob(f"{package}_*.deb")):
            subprocess.run(["apt-get", "download", package], cwd=debs, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["dpkg-deb", "-x", str(next(debs.glob(f"{package}_*.deb"))), str(root)], check=True)
    return root


def sentences(lines, least=40):
    """Lines of some length, white space made one space, each once."""
    lines = (" ".join(line.split()) for line in lines)
    return list(dict.fromkeys(line for line in lines if len(line) >= least))


def pages(paths):
    """Lines of Spanish in HTML."""
    for path in sorted(paths):
        text = path.read_text(encoding="utf-8", errors="ignore")
        text = re.sub(r"(?is)<(script|style|pre|code|head).*?</\1>", " ", text)
        text = re.sub(r"(?i)</?(p|li|div|h\d|td|tr|dt|dd|br|title|section)\b[^>]*>", "\n", text)
        lines = html.unescape(re.sub(r"<[^>]+>", "", text)).split("\n")
        yield from (line for line in lines if re.search(r"\b(de|la|el|que|los|en)\b", line))


def sayings(paths):
    for path in sorted(paths):
        yield from path.read_text(encoding="utf-8", errors="ignore").split("\n%\n")


def messages(paths):
    """Lines of translations (.mo)."""
    for path in sorted(paths):
        with open(path, "rb") as file:
            yield from (line for text in gettext.GNUTranslations(file)._catalog.values() for line in str(text).split("\n"))


def verses(root):
    run = subprocess.run(["mod2imp", "spaRV1909eb", "-s"], env={**os.environ, "SWORD_PATH": str(root / "usr/share/sword")}, capture_output=True, check=True)
    return (re.sub(r"<[^>]*>", "", line) for line in run.stdout.decode().split("\n") if not line.startswith("$$$"))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=Path, help="folder to write")
    o = p.parse_args()
    root = unpacked(o.out)
    share = root / "usr/share"
    for name, lines in (("bible", sentences(verses(root), 20)),
                        ("sayings", sentences(sayings(share.glob("games/fortunes/es/*.fortunes")), 20)),
                        ("gimp", sentences(pages(share.glob("gimp/2.0/help/es/**/*.html")))),
                        ("office", sentences(pages(share.glob("libreoffice/help/es/**/*.html")))),
                        ("handbook", sentences(pages(share.glob("doc/debian-handbook/html/es-ES/*.html")))),
                        ("freedombox", sentences(pages(share.glob("freedombox/manual/es/*.html")))),
                        ("guides", sentences(pages(share.glob("d*/**/*.es.html")))),
                        ("game", sentences(messages(root.glob("**/es/LC_MESSAGES/*.mo"))))):
        path = write_text(o.out / "spanish" / f"{name}.txt", "\n".join(lines) + "\n")
        print(f"spanish: {name}: {path.stat().st_size / 1e6:.2f} MB, {len(lines)} lines")


if __name__ == "__main__":
    main()
