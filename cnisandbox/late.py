"""What few calls need, and import only when they do: loaded here at once, where that would be too late.

After the drop no file can be opened. Code out of a bundle is in memory, so it may be imported then, and most calls need
none of it; where there is no bundle, and in the zygote, whose children share what it has loaded, this comes before.

Privilege: none.
"""

import json  # noqa: F401 - for what netfilter's library says, for attestations, and for a document that is not in order

import cnisandbox._nftables  # a library is no code out of a bundle: a host worker loads it first of all (plugin.py)
import cnisandbox.audit.log
import cnisandbox.monitor.gate  # noqa: F401 - workers become gates at level mediated, which a netconf may ask for
