"""Messages between the dispatcher and its hosts: one `Bus` over links that differ only in how bytes travel."""
