"""The licenses that the Hub knows, as its model cards spell them; huggingface_hub itself asks the Hub.

From its documentation, "Licenses"; `other` stands for every other one.
"""

import argparse

from gpt2_korean.cli.suggestions import nearest

KNOWN = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m
afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0
cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0
cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0
lgpl lgpl-2.1 lgpl-3.0 isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense
zlib pddl lgpl-lr deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3
llama4 gemma unknown other
"""
LICENSES = tuple(KNOWN.split())


def license_id(word):
    """A type for one of LICENSES, in any case."""
    if word.lower() in LICENSES:
        return word.lower()
    meant = nearest(word, LICENSES)
    hint = f"혹시 {meant}인가요?" if meant else "목록에 없는 라이선스라면 --license=other를 주세요."
    raise argparse.ArgumentTypeError(f"{word!r}: Hub가 아는 라이선스가 아닙니다. {hint}")
