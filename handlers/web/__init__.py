"""HTTP: Connexion, Flask and the WSGI layers around them. Only this package and `handlers.events` know a web framework."""
