"""The engine for plain REST: OTA Connect's operator API, and the paths that Uptane devices call. It knows no room."""
