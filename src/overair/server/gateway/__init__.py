"""The device door's engine: MQTT connections, their authorisation, and handlers of reserved topics.

It knows no room. A room's ``device_api.py`` binds the meaning of topics with ``@topic``; ``app.py`` registers them.
"""
