#!/usr/bin/env python3
"""Print the copyright file of the Debian package: opsd's license, and those of all that is inside: copyright.py SITE_PACKAGES.

Promise: no package without the license that came with it; texts that Debian has already are named, not repeated.
"""

import re
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path

#: From the first to the last words of a text that is in /usr/share/common-licenses, and its name there.
COMMON = {
    r"Apache License\s+Version 2\.0, January 2004.*?(?:END OF TERMS AND CONDITIONS|\Z)": "Apache-2.0",
    r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 3, 29 June 2007.*": "LGPL-3",
    r"GNU LESSER GENERAL PUBLIC LICENSE\s+Version 2\.1, February 1999.*": "LGPL-2.1",
}


def texts(distribution: Distribution) -> list[str]:
    """The license files of a distribution, each once; a common one as where it stands on Debian."""
    folder = Path(str(distribution.locate_file("")))
    names = sorted(
        file
        for file in map(str, distribution.files or ())
        if ".dist-info/" in file and any(word in Path(file).name.upper() for word in ("LICEN", "COPYING", "NOTICE"))
    )
    return [shortened(folder.joinpath(name).read_text("utf-8")) for name in names]


def shortened(text: str) -> str:
    """The text, with the place of each common license instead of the license."""
    for words, name in COMMON.items():
        place = f"On Debian systems the text is in /usr/share/common-licenses/{name}."
        text = re.sub(words, place, text, flags=re.DOTALL)
    return text.strip()


def main(folder: str) -> None:
    """Print all of it."""
    print("opsd, and beneath it the libraries in /usr/lib/opsd, as they are on https://pypi.org.")
    for distribution in sorted(distributions(path=[folder]), key=lambda each: each.name.lower()):
        found = texts(distribution)
        if not found:
            sys.exit(f"{distribution.name} came without a license")
        print(f"\n\n{'=' * 78}\n{distribution.name} {distribution.version}\n{'=' * 78}\n")
        print("\n\n".join(found))


if __name__ == "__main__":
    main(sys.argv[1])
