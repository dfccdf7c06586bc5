"""Who gets told and what follows: store, alerts, consoles, HTTP and WebSocket API."""
