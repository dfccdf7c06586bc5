"""INVITEs at a rate, from one address, in a process of its own; JSON of what came back at the end.

``python -m tests.peers.flood ADDRESS TARGET PORT PER_S SECONDS USER[,USER…]``
"""

from __future__ import annotations

import collections
import json
import socket
import sys
import time

BODY = (
    "v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n"
)


def main() -> None:
    host, target, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    per_s, seconds, users = float(sys.argv[4]), float(sys.argv[5]), sys.argv[6].split(",")
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    sender.bind((host, 0))
    sender.setblocking(False)
    own = sender.getsockname()[1]
    body = BODY.format(host=host)
    answers: collections.Counter[str] = collections.Counter()
    sent = sent_bytes = came_bytes = 0

    def take() -> None:
        nonlocal came_bytes
        try:
            while True:
                answer = sender.recv(65536)
                came_bytes += len(answer)
                answers[answer.split(b" ", 2)[1].decode()] += 1
        except BlockingIOError:
            return

    started, whole = time.monotonic(), int(per_s * seconds)
    # All of it, also where the machine stood still at the end; but not for ever.
    while sent < whole and (elapsed := time.monotonic() - started) < 2 * seconds:
        while sent < min(whole, elapsed * per_s):
            name = f"{started:.6f}.{sent}"
            user = users[sent % len(users)]
            message = (
                f"INVITE sip:{user}@{target}:{port} SIP/2.0\r\n"
                f"Via: SIP/2.0/UDP {host}:{own};branch=z9hG4bK{name};rport\r\n"
                f"From: <sip:flood@{host}>;tag=t{name}\r\nTo: <sip:{user}@{target}>\r\n"
                f"Call-ID: flood-{name}\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n"
                f"Contact: <sip:flood@{host}:{own}>\r\nContent-Type: application/sdp\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            ).encode()
            try:
                sender.sendto(message, (target, port))
            except BlockingIOError:
                break
            sent += 1
            sent_bytes += len(message)
        time.sleep(0.002)
        take()
    time.sleep(0.2)
    take()
    print(
        json.dumps(
            {
                "sent": sent,
                "sent_bytes": sent_bytes,
                "came_bytes": came_bytes,
                "answers": dict(answers),
            }
        )
    )


if __name__ == "__main__":
    main()
