# The two commands of the README are `make demo` and `make test`. Both first install what they need into ./.venv.
PYTHON ?= python3
BIN := .venv/bin

# What `make demo` annotates. Default: a rendered clip; the model has not seen the person.
VIDEO ?= $(firstword $(patsubst demo/data/annotations/AU_Detection_Challenge/Validation_Set/%.txt,demo/data/batch1/%.mp4,\
           $(sort $(wildcard demo/data/annotations/AU_Detection_Challenge/Validation_Set/*.txt))))

# Tests that start, or kill parts of, a Ray of their own get a pytest process of their own.
CLUSTER := $(shell grep -lR --include="test_*.py" "mark.cluster" tests | sort)

.PHONY: demo demo-annotate demo-train test test-ray test-unit test-slow lint install

install: .venv/.installed

.venv/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "aupipe needs Python 3.10 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[synthesis,search,dev]'
	touch $@

# Everything that the demos write is under ./demo; each step goes on where it stopped.
demo: install
	$(BIN)/python jobs/synthesize.py --out demo/data --videos 12 --seconds 2 --seed 9
	$(BIN)/python jobs/preprocess.py --data demo/data --out demo/store
	$(BIN)/python jobs/evaluate.py --checkpoint aupipe/weights/starter/close aupipe/weights/starter/core --data demo/store --split all --out demo/evaluation
	$(MAKE) --no-print-directory demo-annotate

# A model of one's own on rendered faces, and its scores.
demo-train: install
	$(BIN)/python jobs/synthesize.py --out demo/faces --videos 120 --seconds 1
	$(BIN)/python jobs/preprocess.py --data demo/faces --out demo/faces-store
	$(BIN)/python jobs/train.py --recipe multilabel_transformer --quick --data demo/faces-store --out demo/run --workers 2 \
	  --set stages.train.tasks.au.data.every_n=1 --set stages.train.epochs=12
	$(BIN)/python jobs/evaluate.py --checkpoint demo/run/best --data demo/faces-store --split validation --out demo/run/scores

# Exit code 3 says that the video could be done, but lost frames: its rows are still worth a look.
demo-annotate:
	$(BIN)/python jobs/annotate.py --input '$(VIDEO)' --out demo/annotation || test $$? -eq 3
	$(BIN)/python -c 'import sys, pyarrow.dataset as d; \
	  rows = d.dataset("demo/annotation/frames").to_table(filter=d.field("video_id") == sys.argv[1]).slice(0, 5); \
	  columns = ["video_id", "frame", "time_s", "face_id", "status", "AU06_prob", "AU12_prob", "AU12", "AU25_prob", "AU25"]; \
	  print("\nfirst rows of demo/annotation/frames/*.parquet:"); \
	  print(rows.select(columns).to_pandas().to_string(index=False))' '$(notdir $(VIDEO))'

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Two at a time: Ray's tests mostly wait.
test: lint
	$(MAKE) --no-print-directory --jobs=2 --output-sync test-ray test-unit $(CLUSTER:=.cluster)

test-ray: install
	$(BIN)/pytest -m 'ray and not slow'

test-unit: install
	$(BIN)/pytest -m 'unit and not slow'

%.cluster: install
	$(BIN)/pytest -m 'cluster and not slow' $* || test $$? -eq 5

test-slow: install
	set -e; for file in $$(grep -lR --include='test_*.py' 'mark.slow' tests | sort); do \
	  $(BIN)/pytest -m slow $$file; done
