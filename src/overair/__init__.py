"""Overair: firmware updates for unmodified AWS IoT / FreeRTOS and Uptane devices, self-hosted."""
