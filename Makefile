# Every target runs where DOLFINx is (environment/run): on this machine, or in a private tree made on first use.
# LANE=wheels picks DOLFINx 0.11 from binary wheels instead of Debian's 0.9.
RUN := environment/run
export LANE ?= default

RUFF := ruff==0.17.6
# Debian has no ruff: pip puts it in the cache folder, once. Both tools run, also if the first complains.
define LINT
tools=$${XDG_CACHE_HOME:-$$HOME/.cache}/fe2x-$(RUFF); \
[ -x $$tools/bin/ruff ] || python3 -m pip install --quiet --root-user-action=ignore --target $$tools $(RUFF) || exit; \
code=0; $$tools/bin/ruff check . || code=1; mypy || code=1; exit $$code
endef

.PHONY: help demo test test-all test-slurm test-precice performance benchmark results docs release lint shell clean
.DELETE_ON_ERROR:

help:  ## list the targets
	@sed -n 's/^\([^ :]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 36

demo:  ## Cook's membrane with an RVE at every quadrature point, exact and then learned, on two ranks
	$(RUN) mpirun -n 2 python3 demos/demo_cook.py
	$(RUN) mpirun -n 2 python3 demos/demo_surrogate.py

test:  ## the tests, two at a time, and those for MPI on two and three ranks
	$(RUN) tests/run

test-all:  ## the same with the slow ones
	FE2X_SLOW=1 $(RUN) tests/run

test-slurm:  ## demos/batch/slurm.sh under a real SLURM, from its time limit to the end of the run (as root)
	tests/slurm/run

test-precice:  ## a coupled run of preCICE's Micro Manager (as root; compiles libprecice on first use)
	tests/precice/run

performance:  ## the benchmarks that are about time (half an hour), and the page of results
	$(RUN) python3 benchmarks/results.py --measure performance

benchmark:  ## every benchmark, one after the other (many hours), and the page of results
	$(RUN) python3 benchmarks/results.py --measure all

results:  ## benchmarks/RESULTS.md, from what the benchmarks have kept
	$(RUN) python3 benchmarks/results.py

docs:  ## the documentation as HTML, docs/_build/html/index.html
	@$(RUN) docs/build

release:  ## wheel and source distribution in dist/, each checked in an environment without FEniCSx
	LANE=wheels $(RUN) tests/release/run

lint:  ## style and types
	@$(RUN) bash -c '$(LINT)'

shell:  ## a shell in the environment
	@$(RUN) bash

environment/environment.yml: environment/packages.txt environment/conda  ## the conda recipe, from the package list
	environment/conda > $@

clean:  ## remove what the other targets leave in this folder (not the environment, which all clones share)
	rm -rf build dist results docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
