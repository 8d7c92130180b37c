"""The order of the files, so that the workers end together."""


def pytest_collection_modifyitems(items):
    "Files whose tests are slow come first: one that comes last keeps one worker busy and the other idle."
    share = {}
    for item in items: share.setdefault(item.path, []).append(item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: -sum(share[item.path])/len(share[item.path]))   # stable: files stay together
