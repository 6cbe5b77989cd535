"""Lists of sockets, as the kernel prints them."""

from shim.stats.sockets import sockets
from shim.stats.values import Datagrams

TCP = b"""  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F90 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 100 0 0 10 0
   2: 0100007F:1F90 0100007F:C001 06 00000000:00000000 00:00000000 00000000     0        0 0 1 0
"""
UDP = b"""   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  10: 00000000:0044 00000000:0000 07 00000001:00000010 00:00000000 00000000     0        0 9 2 0 3
  11: 0100007F:0045 0100007F:0046 01 00000000:00000000 00:00000000 00000000     0        0 9 2 0 4
"""
SNMP = b"Ip: Forwarding\nIp: 1\nTcp: RtoMin MaxConn InSegs\nTcp: 200 -1 7\n"
NETSTAT = b"TcpExt: TW TCPHPHits\nTcpExt: 5 6\nIpExt: InOctets\nIpExt: 9\n"


def test_tcp() -> None:
    counts = sockets({"tcp": TCP}).tcp["tcp"]
    assert (counts["listen"], counts["established"], counts["timewait"], counts["closing"]) == (1, 1, 1, 0)


def test_udp() -> None:
    assert sockets({"udp6": UDP}).udp == {"udp6": Datagrams(listen=1, dropped=7, rxqueued=16, txqueued=1)}


def test_counters() -> None:
    found = sockets({"snmp": SNMP, "netstat": NETSTAT}).advanced
    assert found == {"rtomin": 200, "maxconn": 0, "insegs": 7, "tw": 5, "tcphphits": 6}


def test_nothing_asked_for() -> None:
    assert sockets({}).tcp == {}
