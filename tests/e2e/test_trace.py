"""`darkroom generate --trace`: what a run did when, on the host and on the device."""
import json

import pytest

from conftest import darkroom

NEAR_US = 200   # how well the two clocks agree


def traced(path, *options):
    r = darkroom("generate", "a red circle on a blue background", "--seed", 7, *options,
                 "--trace", path, "-o", path.parent / "x.webp", "--json")
    assert r.returncode == 0, r.stderr
    events = json.loads(path.read_text())
    names = {e["args"]["name"]: e["tid"] for e in events if e["ph"] == "M"}
    lane = {name.split(":")[0]: [e for e in events if e["ph"] == "X" and e["tid"] == tid]
            for name, tid in names.items()}
    assert set(lane) == {"host", "device"} and len(events) == 2 + sum(map(len, lane.values()))
    return json.loads(r.stdout), lane["host"], lane["device"]


def end(e):
    return e["ts"] + e["dur"]


def named(events, name):
    return [e for e in events if e["name"] == name]


@pytest.mark.parametrize("options, pictures, steps, passes", [
    (["--steps", 4], 1, 4, 1),
    (["--steps", 3, "--count", 2, "--sampler", "heun"], 2, 3, 1),
    (["--steps", 4, "--size", "64x64", "--field", 'hires={"scale": 2, "strength": 0.5}'],
     1, 6, 2),
])
def test_a_trace_shows_phases_steps_and_kernels(tmp_path, options, pictures, steps, passes):
    told, host, device = traced(tmp_path / "t.json", *options)
    wall_us = told["timings"]["total"] * 1e6

    assert len(named(host, "load")) == 1
    assert len(named(host, "encode")) == len(named(host, "denoise")) == passes
    assert len(named(host, "decode")) == len(named(host, "compress")) == pictures
    assert len([e for e in host if e["cat"] == "step"]) == steps
    for phase in ("load", "encode", "denoise", "decode", "compress"):
        traced_s = sum(e["dur"] for e in named(host, phase)) / 1e6
        assert traced_s == pytest.approx(told["timings"][phase], rel=0.1, abs=0.01)

    assert all(e["cat"] == "kernel" and e["args"]["op"] for e in device)
    assert all(end(a) <= b["ts"] + 0.002 for a, b in zip(device, device[1:]))
    assert all(e["dur"] >= 0 for e in device) and end(device[-1]) <= wall_us + NEAR_US
    assert 0 < sum(e["dur"] for e in device) <= wall_us


def test_both_lanes_are_on_one_time_line(tmp_path):
    """The host waits for the device after every step, so a step's kernels lie inside it."""
    _, host, device = traced(tmp_path / "t.json", "--steps", 5)
    spans = [e for e in host if e["cat"] == "step"]
    samplers = named(device, "sampler_step")[-len(spans):]   # the self-test's come first
    assert len(samplers) == len(spans) == 5
    for kernel, span in zip(samplers, spans):
        assert span["ts"] - NEAR_US <= kernel["ts"] and end(kernel) <= end(span) + NEAR_US
        inside = [e for e in device if span["ts"] <= e["ts"] < end(span)]
        assert len(inside) > 100 and sum(e["dur"] for e in inside) <= span["dur"] + NEAR_US
    rgb, decode = named(device, "to_rgb8")[-1], named(host, "decode")[0]
    assert decode["ts"] - NEAR_US <= rgb["ts"] and end(rgb) <= end(decode) + NEAR_US


def test_a_trace_changes_no_picture(tmp_path):
    traced(tmp_path / "t.json", "--steps", 3)
    r = darkroom("generate", "a red circle on a blue background", "--seed", 7, "--steps", 3, "-o",
                 tmp_path / "y.webp")
    assert r.returncode == 0
    assert (tmp_path / "x.webp").read_bytes() == (tmp_path / "y.webp").read_bytes()


@pytest.mark.parametrize("path, code", [("none/t.json", 66), (".", 74)])
def test_a_trace_that_cannot_be_written_is_told_before_work(tmp_path, path, code):
    r = darkroom("generate", "x", "--trace", tmp_path / path, "-o", tmp_path / "x.webp")
    assert r.returncode == code and "--trace" in r.stderr and "load" not in r.stderr
    assert not (tmp_path / "x.webp").exists()


def test_a_full_disk_is_told(tmp_path):
    r = darkroom("generate", "x", "--steps", 2, "--trace", "/dev/full", "-o",
                 tmp_path / "x.webp")
    assert r.returncode == 74 and "/dev/full: could not be written" in r.stderr
    assert (tmp_path / "x.webp").exists()
