"""The vectors and answers of an exported encoder with onnxruntime and numpy alone.

python onnx_forecast.py FOLDER FEATURES.npy [FURTHER.npy ...]   # (T, columns) float32 each, NaN = missing
"""
import json, sys
import numpy as np, onnxruntime

LIVE = 5  # bars at the end that are taken one at a time, as if they closed now


def main(folder, *paths):
    window, step = (onnxruntime.InferenceSession(f"{folder}/{form}.onnx", providers=["CPUExecutionProvider"])
                    for form in ("window", "step"))
    about = step.get_modelmeta().custom_metadata_map
    names = ["x", *json.loads(about["inputs"])]
    series = {name: np.load(path).astype("float32")[None] for name, path in zip(names, paths, strict=True)}

    def run(session, given):  # answers by name, and the state after the last bar
        made = dict(zip([one.name for one in session.get_outputs()], session.run(None, given)))
        return made, {name.replace("next", "state"): made[name] for name in made if name.startswith("next_")}

    made, state = run(window, {name: values[:, :-LIVE] for name, values in series.items()})
    for bar in range(-LIVE, 0):
        made, state = run(step, {name: values[:, bar] for name, values in series.items()} | state)
        print(json.dumps({name: made[name][0].tolist() for name in json.loads(about["outputs"])}))


main(*sys.argv[1:])
