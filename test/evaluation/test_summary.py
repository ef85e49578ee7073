"""An evaluation on half a screen."""

from opendrivevla_ros.evaluation.summary import summary

DRIVEN = {"passed": {"count": 9, "of": 10}, "collisions": {"count": 1}, "command_carried_out": {"count": 2, "of": 3}}
PLANNED = {"displacement": {"uniad": {"average": 0.551}}, "collides": 0.0123, "driver_score": 0.8765}


def test_who_drove_and_who_planned_share_a_row_and_what_is_not_there_is_left_out():
    nobody = {**DRIVEN, "command_carried_out": {"count": 0, "of": 0}}
    found = {
        "closed-loop": {"drivers": {"small": DRIVEN, "expert": nobody}},
        "open-loop": {
            "policies": {"small": PLANNED, "ego_state": PLANNED},
            "detection": {"classes": {"car": {"average_precision": 0.551}, "bus": {"average_precision": 0.2}}},
            "map": {"overlap": {"divider": 0.1, "boundary": 0.2}},
            "map_masks": {"overlap": {"divider": 0.3, "boundary": 0.4, "ped_crossing": 0.5}},
        },
        "text": {
            "seeing": {"bleu": {"all": 57.64}, "accuracy": {"all": 0.464}},
            "blind": {"bleu": {"all": 49.0}, "accuracy": {"all": 0.455}},
        },
        "confidence": {"area": 0.727},
    }
    told = summary(found)
    assert "| small | 9 of 10 | 1 | 2 of 3 | 0.55 | 1.2 % | 0.876 |" in told
    assert "| expert | 9 of 10 | 1 | - | - | - | - |" in told
    assert "| ego_state | - | - | - | 0.55 | 1.2 % | 0.876 |" in told
    assert "car 0.55." in told
    assert "divider 0.30, boundary 0.40." in told
    assert "BLEU-4: 57.6, without scene tokens 49.0; right answers 46 and 46 %." in told
    assert "in 73 of 100" in told
    assert summary({"closed-loop": found["closed-loop"]}).count("|\n") == 4
