def run(a, b):
    return {"sum": a + b}
