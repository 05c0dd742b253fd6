"""Compare two reports: what got worse, what got better, and what is merely different.

Worse is: an attempt that did not work works, something outside changes that did not, a call holds another capability,
reads what others wrote while it holds one, may make more system calls or reaches more network namespaces, a replay is
contained less. The control, column root, cannot get worse. Status 0: nothing got worse. 1: something did. 2: called
wrongly, or a document cannot be read.
"""

import argparse
import sys

from cnisandbox.cli import output
from cnisandbox.errors import CniError
from cnisandbox.laboratory.report import comparison, schema
from cnisandbox.laboratory.report.compare import LOST, WORSE, compare


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("before", metavar="A.json", help="the audit.json that it is compared with")
    parser.add_argument("after", metavar="B.json", help="the audit.json that is judged")
    parser.add_argument("--strict", action="store_true", help="what is no longer known counts as worse")
    parser.add_argument("--json", action="store_true", help="print for programs")


def run(arguments: argparse.Namespace) -> int:
    """Compare, and say so by the status."""
    try:
        before, after = schema.read(arguments.before), schema.read(arguments.after)
    except CniError as error:
        output.print_error(error)
        return 2
    findings = compare(before, after)
    counted = {WORSE, LOST} if arguments.strict else {WORSE}
    is_worse = any(finding.kind in counted for finding in findings)
    if arguments.json:
        output.print_json(comparison.members(findings, is_worse))
    else:
        sys.stdout.write(comparison.render(findings, output.paint))
    return 1 if is_worse else 0
