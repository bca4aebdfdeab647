"""The console's pages: server-rendered, usable without JavaScript, over the same store and the same rules as the API.

A GET never changes anything. A form that changes something carries its session's CSRF token. What it submits is signed with the person's own login
and handled like a body of the API.
"""
