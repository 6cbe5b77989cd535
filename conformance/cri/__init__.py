"""Judge a CRI endpoint, whichever runtime serves it: `pytest conformance/cri --endpoint unix:///path`.

The suite runs on the endpoint's node as root: it reads the logs and the directories that its pods use. What an endpoint does
otherwise than the CRI says stands, with the reason, in `deviations`; everything else must pass, and what stands there fail.
`python -m conformance.cri` brings up a wherryd with a registry for those who have critest.
"""
