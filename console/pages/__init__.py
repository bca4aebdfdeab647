"""The console's pages: server-rendered, usable without JavaScript, over the same store and the same rules as the API.

A GET never changes anything. What changes things is a form that carries its session's token; it is signed by the person's own login and goes the
way that the API's bodies go.
"""
