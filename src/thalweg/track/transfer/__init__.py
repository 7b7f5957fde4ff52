"""Runs of other trackers into a store, and a store's runs into files of other trackers."""
