"""Files delivered to devices over MQTT, block by block (wire reference §4)."""
