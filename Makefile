# The two commands of the README are `make demo` and `make test`. Both first install what they need into ./.venv.
PYTHON ?= python3
BIN := .venv/bin

# The video that `make demo` annotates. The default is a rendered clip of a person that no model was trained on.
VIDEO ?= $(firstword $(sort $(wildcard demo/clips/batch1/*.mp4)))

# Tests that start a Ray of their own, or kill parts of it, get a pytest process of their own, the longest ones first.
LONGEST := tests/pipelines/test_train.py tests/pipelines/test_tune.py
CLUSTER := $(LONGEST) $(filter-out $(LONGEST), $(shell grep -lR --include="test_*.py" "mark.cluster" tests | sort))

# Each process of a test would otherwise compile aupipe anew where this is set.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: bench demo demo-annotate demo-train test test-ray test-unit test-slow lint install

install: .venv/.installed

# Modules are compiled on all cores, which pip does on one. Some packages have files for other versions of Python, which
# compile nowhere.
.venv/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "aupipe needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[synthesis,search,dev]'
	$(BIN)/python -m compileall -q -j 0 $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') >/dev/null || true
	touch $@

# The demos write below ./demo only, and each step resumes. Scores come from twelve small clips, because a score needs
# people; the annotated clip is larger, because somebody will look at it.
demo: install
	$(BIN)/python jobs/synthesize.py --out demo/data --videos 12 --seconds 2 --seed 9
	$(BIN)/python jobs/preprocess.py --data demo/data --out demo/store
	$(BIN)/python jobs/evaluate.py --checkpoint starter --data demo/store --split all --out demo/evaluation
	$(BIN)/python jobs/synthesize.py --out demo/clips --videos 3 --seconds 2 --seed 21 --set render.size_px=480
	$(MAKE) --no-print-directory demo-annotate

# A model of one's own on rendered faces, and its scores.
demo-train: install
	$(BIN)/python jobs/synthesize.py --out demo/faces --videos 120 --seconds 1
	$(BIN)/python jobs/preprocess.py --data demo/faces --out demo/faces-store
	$(BIN)/python jobs/train.py --recipe multilabel_transformer --quick --data demo/faces-store --out demo/run \
	  --set ablation=starter
	$(BIN)/python jobs/evaluate.py --checkpoint demo/run/best --data demo/faces-store --split validation --out demo/run/scores

# Exit code 3 means that the video is done but lost frames; its rows are complete.
demo-annotate:
	$(BIN)/python jobs/annotate.py --input '$(VIDEO)' --out demo/annotation || test $$? -eq 3
	$(BIN)/python -c 'import sys, pyarrow.dataset as d; \
	  rows = d.dataset("demo/annotation/frames").to_table(filter=d.field("video_id") == sys.argv[1]).slice(0, 5); \
	  columns = ["video_id", "frame", "time_s", "face_id", "status", "AU06_prob", "AU12_prob", "AU12", "AU25_prob", "AU25"]; \
	  print("\nfirst rows of demo/annotation/frames/*.parquet:"); \
	  print(rows.select(columns).to_pandas().to_string(index=False))' '$(notdir $(VIDEO))'
	$(BIN)/python jobs/report.py demo/annotation

# Figures of this machine, while nothing else runs on it: bench.jsonl and bench.png in minutes.
bench: install
	$(BIN)/python jobs/bench.py all

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Three at a time: tests on Ray mostly wait for processes to start.
test: install
	$(MAKE) --no-print-directory --jobs=3 --output-sync lint test-ray test-unit $(CLUSTER:=.cluster)

test-ray: install
	$(BIN)/pytest -m 'ray and not slow'

test-unit: install
	$(BIN)/pytest -m 'unit and not slow'

%.cluster: install
	$(BIN)/pytest -m 'cluster and not slow' $* || test $$? -eq 5

test-slow: install
	set -e; for file in $$(grep -lR --include='test_*.py' 'mark.slow' tests | sort); do \
	  $(BIN)/pytest -m slow $$file; done
