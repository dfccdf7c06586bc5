"""Calls: SIP back-to-back user agent, media relay, notice gate, prompts."""
