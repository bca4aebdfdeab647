"""The console's pages: server-rendered, for people with a browser. They decide nothing that the API would not."""
