"""The attacker: what he tries, one function per attempt, each beside the judge that sees from outside what came of it.

His modules import the standard library and each other, nothing of the project: under the runner they are executed as a
plugin that is not ours.
"""
