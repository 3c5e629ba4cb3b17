"""HTTP: Connexion, Flask and the WSGI layers around them. Together with `handlers.events` the only part that knows a web framework."""
