"""Real SIP peers as processes: baresip, sipp, tshark, and a whole Callshield node."""
