"""The suite that every family of networks passes. Inherit it and say which family, how small, and for which task."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from raysearch.errors import UserError
from raysearch.export.programs import write_torch_export
from raysearch.report import write_report
from raysearch.report.places import value_text
from raysearch.search import Candidate, Proposal, Result
from raysearch.space import Architecture, SearchSpace
from raysearch.spaces import Family, Geometry, Subnet, Supernet, build_subnet
from raysearch.spaces.other_ends import Refitted, refitted
from raysearch.store.summary import Counts, Network, Networks, Summary, Training
from raysearch.tasks import Ends
from raysearch.tracking.child_run import architecture_params
from raysearch.training.supernets import SupernetFile, read_supernet

DRAWS = 40
"""Random architectures for what costs no forward pass."""
NETWORKS = 3
"""Random subnets beside the smallest and the largest for what does."""


class FamilyContract:
    """Inherited as ``class TestMine(FamilyContract)``."""

    FAMILY: Family[Any, Any]
    """The family."""
    CONFIG: Any
    """A small configuration of it: every test builds the supernet, and reads it whole."""
    ENDS = Ends((1, 8, 8), 5)
    """What goes in, (chans, height, width), and how many numbers come out."""
    LACKS: frozenset[str] = frozenset()
    """Of the family's undecayed parameters, those that networks of this configuration do not have."""

    def macs(self, arch: Any, subnet: nn.Module) -> int:
        """Multiply-accumulates of one item by another count than the family's own: PyTorch's, two operations for each.

        A family whose documented convention counts otherwise (what is computed with fewer products than it stands for)
        overrides this.
        """
        described = copy.deepcopy(subnet).to("meta")  # where all operations are counted: a CPU's fused attention is not
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            described(self.inputs(1).to("meta"))
        assert counter.get_total_flops() % 2 == 0
        return counter.get_total_flops() // 2

    def used(self, supernet: Supernet[Any], arch: Any) -> dict[str, Tensor]:
        """Which entries of each parameter of the supernet ``arch`` uses, as masks.

        Found by extraction: every entry gets a number of its own, and those that the subnet holds are the ones in use. A family
        whose subnets hold weights that are computed from the supernet's overrides this.
        """
        numbered = supernet.double()
        count = 1
        for parameter in numbered.parameters():
            numbers = torch.arange(count, count + parameter.numel(), dtype=torch.float64)
            parameter.data = numbers.view(parameter.shape)
            count += parameter.numel()
        held = torch.cat([p.detach().flatten() for p in numbered.extract(arch).parameters()])
        return {name: torch.isin(p.detach(), held) for name, p in numbered.named_parameters()}

    # --- what the tests build ---

    @property
    def geometry(self) -> Geometry[Any]:
        """Of the small configuration."""
        return self.FAMILY.build(self.CONFIG, self.ENDS)

    @property
    def space(self) -> SearchSpace[Any]:
        """What may be chosen."""
        return self.geometry.space

    def settings(self, drop_path_rate: float = 0.0) -> dict[str, Any]:
        """The supernet's arguments, as a checkpoint holds them."""
        return json.loads(json.dumps({**self.geometry.settings, "drop_path_rate": drop_path_rate}))

    def supernet(self, drop_path_rate: float = 0.0) -> Supernet[Any]:
        """In evaluation mode, with weights of which none is 0 or the same as another."""
        built = self.FAMILY.supernet(**self.settings(drop_path_rate))
        drawn = torch.Generator().manual_seed(0)
        built.reset_parameters(weight_init="xavier", pos_embed_std=0.2, generator=drawn)
        with torch.no_grad():
            for parameter in built.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=drawn))
        return built.eval()

    def inputs(self, batch: int = 3) -> Tensor:
        """Random items, the same each time."""
        return torch.randn(batch, *self.ENDS.input_shape, generator=torch.Generator().manual_seed(1))

    def networks(self) -> list[Any]:
        """The smallest, the largest and some random architectures."""
        drawn = [self.space.sample(Random(f"contract/{i}")) for i in range(NETWORKS)]
        return list(dict.fromkeys([self.space.smallest(), self.space.largest(), *drawn]))

    # --- the space ---

    def test_space_is_closed_under_sampling_mutation_and_crossover(self):
        space = self.space
        earlier = space.largest()
        for i in range(DRAWS):
            rng = Random(i)
            drawn = space.sample(rng)
            for arch in (drawn, space.mutate(drawn, rng), space.crossover(drawn, earlier, rng), space.smallest()):
                assert space.contains(arch), arch
                back = self.FAMILY.architecture.from_json(arch.to_json())
                assert (back, back.id) == (arch, arch.id)
                assert self.FAMILY.architecture.from_dict(json.loads(json.dumps(arch.to_dict()))).id == arch.id
                assert space.from_params(space.to_params(arch)) == arch
            earlier = drawn

    def test_what_the_space_holds_fits_and_costs_something_that_grows(self):
        geometry = self.geometry
        costs = {arch: geometry.cost(arch) for arch in self.networks()}
        smallest, largest = costs[self.space.smallest()], costs[self.space.largest()]
        assert all(smallest.params <= cost.params <= largest.params for cost in costs.values())
        assert all(smallest.macs <= cost.macs <= largest.macs for cost in costs.values())
        assert smallest.params < largest.params, "a search of this space has no size to weigh against the score"
        for arch in costs:
            features = geometry.features(arch)
            assert features.keys() == geometry.features(self.space.largest()).keys()
            assert all(value >= 0 for value in features.values())

    # --- supernet and subnet ---

    def test_extract_equals_forward(self):
        supernet, inputs = self.supernet(), self.inputs()
        storages = {tensor.untyped_storage().data_ptr() for tensor in supernet.state_dict().values()}
        with torch.no_grad():
            for arch in self.networks():
                subnet = supernet.extract(arch)
                outputs = subnet(inputs)
                assert outputs.shape == (len(inputs), self.ENDS.outputs)
                torch.testing.assert_close(outputs, supernet(inputs, arch), rtol=1e-5, atol=1e-5)
                for name, tensor in subnet.state_dict().items():
                    assert tensor.is_contiguous(), name
                    assert tensor.untyped_storage().data_ptr() not in storages, f"{name} is the supernet's own memory"

    def test_items_of_a_batch_do_not_mix(self):
        """In evaluation mode: what a candidate scores must not depend on the batch size of the evaluators."""
        supernet, inputs = self.supernet(), self.inputs()
        with torch.no_grad():
            for arch in self.networks():
                alone = torch.cat([supernet(item[None], arch) for item in inputs])
                torch.testing.assert_close(supernet(inputs, arch), alone, rtol=1e-4, atol=1e-5)

    def test_cost_is_exact(self):
        supernet, geometry = self.supernet(), self.geometry
        for arch in self.networks():
            subnet = supernet.extract(arch)
            cost = supernet.cost(arch)
            assert cost == geometry.cost(arch)
            assert cost.params == sum(parameter.numel() for parameter in subnet.parameters())
            assert cost.macs == self.macs(arch, subnet)

    def test_settings_build_an_equal_supernet(self):
        supernet, inputs = self.supernet(0.125), self.inputs()
        plain = {**self.geometry.settings, "drop_path_rate": 0.125}
        assert supernet.settings() == plain == self.settings(0.125), "plans compare them with a checkpoint's, which are JSON"
        other = self.FAMILY.supernet(**json.loads(json.dumps(supernet.settings()))).eval()
        other.load_state_dict(supernet.state_dict())
        arch = self.space.largest()
        with torch.no_grad():
            assert torch.equal(other(inputs, arch), supernet(inputs, arch))

    def test_a_checkpoint_brings_it_back(self, tmp_path: Path):
        supernet, inputs = self.supernet(), self.inputs()
        path = tmp_path / "supernet.safetensors"
        SupernetFile(self.FAMILY, supernet.settings(), supernet.state_dict(), images="0123").write(path)
        read = read_supernet(path, self.FAMILY)
        back = read.build().eval()
        assert (read.images, back.settings()) == ("0123", supernet.settings())
        # Built on the meta device, so as to draw no weights: whatever the state dict does not bring must be there all the same.
        assert not [name for name, tensor in [*back.named_parameters(), *back.named_buffers()] if tensor.is_meta]
        with torch.no_grad():
            for arch in self.networks():
                assert torch.equal(back(inputs, arch), supernet(inputs, arch))
                assert torch.equal(back.extract(arch).eval()(inputs), supernet.extract(arch)(inputs))

    def test_the_subnet_is_what_extract_gives(self):
        supernet, inputs = self.supernet(), self.inputs()
        for arch in self.networks():
            extracted = supernet.extract(arch)
            # As training alone and champion.json have them.
            for settings in (supernet.settings(), dict(self.geometry.settings)):
                fresh = build_subnet(self.FAMILY, settings, arch.to_dict())
                assert isinstance(fresh, Subnet)
                shapes = {name: tensor.shape for name, tensor in fresh.state_dict().items()}
                assert shapes == {name: tensor.shape for name, tensor in extracted.state_dict().items()}
                fresh.load_state_dict(extracted.state_dict())
                with torch.no_grad():
                    assert torch.equal(fresh.eval()(inputs), extracted(inputs))

    def test_gradients_reach_exactly_the_slices_in_use(self):
        for arch in self.networks():
            supernet = self.supernet()
            outputs = supernet(self.inputs(), arch)
            torch.manual_seed(0)
            (outputs * torch.randn_like(outputs)).sum().backward()
            gradients = {name: parameter.grad for name, parameter in supernet.named_parameters()}
            for name, mask in self.used(self.supernet(), arch).items():
                gradient = gradients[name]
                if gradient is None:
                    assert not mask.any(), f"{name}: {arch} uses it, no gradient reached it"
                    continue
                assert not gradient[~mask].any(), f"{name}: gradients of entries that {arch} does not use"
                assert not mask.any() or gradient[mask].any(), f"{name}: {arch} uses it, its gradients are all 0"

    @pytest.mark.parametrize("weight_init", ["xavier", "trunc_normal"])
    def test_initial_weights_repeat_for_equal_generators(self, weight_init: Any):
        arch = self.space.largest()
        for network in (self.FAMILY.supernet(**self.settings()), self.FAMILY.subnet(self.settings(), arch)):
            drawn: list[dict[str, Tensor]] = []
            for seed in (0, 0, 1):
                with torch.no_grad():
                    for parameter in network.parameters():
                        parameter.fill_(float("nan"))  # every weight must be drawn anew
                generator = torch.Generator().manual_seed(seed)
                network.reset_parameters(weight_init=weight_init, pos_embed_std=0.1, generator=generator)
                drawn.append({name: parameter.detach().clone() for name, parameter in network.named_parameters()})
            first, again, other = drawn
            assert all(weight.isfinite().all() for weight in first.values())
            assert all(torch.equal(weight, again[name]) for name, weight in first.items())
            assert any(not torch.equal(weight, other[name]) for name, weight in first.items())

    def test_stochastic_depth_is_taken(self):
        plain, dropping, inputs = self.supernet(), self.supernet(0.5), self.inputs(8)
        dropping.load_state_dict(plain.state_dict())
        arch = self.space.largest()
        with torch.no_grad():
            assert torch.equal(dropping(inputs, arch), plain(inputs, arch)), "in evaluation mode nothing is dropped"
            for network in (dropping.train(), self.trained(dropping, arch)):
                torch.manual_seed(0)
                outputs = [network(inputs, arch) if network is dropping else network(inputs) for _ in range(2)]
                assert not torch.equal(*outputs), "drop_path_rate changes nothing"

    def trained(self, supernet: Supernet[Any], arch: Any) -> nn.Module:
        """A subnet as training it alone has it: built from the settings, in training mode."""
        subnet = build_subnet(self.FAMILY, supernet.settings(), arch.to_dict())
        subnet.load_state_dict(supernet.extract(arch).state_dict())
        return subnet.train()

    def test_undecayed_parameters_exist(self):
        last = {name.rpartition(".")[2] for name, _ in self.FAMILY.supernet(**self.settings()).named_parameters()}
        assert set(self.FAMILY.undecayed) - self.LACKS <= last

    def test_subnets_become_programs(self, tmp_path: Path):
        supernet, shape = self.supernet(), cast("tuple[int, int, int]", self.ENDS.input_shape)
        for arch in (self.space.smallest(), self.space.largest()):
            write_torch_export(tmp_path / f"{arch.id}.pt2", supernet.extract(arch), shape)  # compares their outputs

    # --- other classes and other images ---

    def test_other_classes_get_a_fresh_head_on_the_same_body(self):
        supernet, arch = self.supernet(), self.space.sample(Random("ends"))
        ends = Ends(self.ENDS.input_shape, self.ENDS.outputs + 2)
        if self.FAMILY.for_ends is None:
            with pytest.raises(UserError, match="sets no for_ends"):
                refitted(self.FAMILY, self.settings(), supernet.state_dict(), ends, arch=None, seed=0)
            pytest.skip("networks of this family stay with their classes")
        assert dict(self.FAMILY.for_ends(self.settings(), self.ENDS)) == self.settings()
        for network, one in ((supernet, None), (supernet.extract(arch), arch)):
            weights = network.state_dict()
            made = refitted(self.FAMILY, self.settings(), weights, ends, arch=one, seed=0)
            assert made.fresh
            assert made.weights.keys() == weights.keys()
            assert all(torch.equal(made.weights[name], weights[name]) for name in weights.keys() - {*made.fresh})
            again, other = (
                refitted(self.FAMILY, self.settings(), weights, ends, arch=one, seed=seed).weights for seed in (0, 1)
            )
            assert all(torch.equal(made.weights[name], again[name]) for name in made.fresh)
            assert any(not torch.equal(made.weights[name], other[name]) for name in made.fresh)
            assert self.outputs_of(made, arch, whole=one is None, inputs=self.inputs()).shape == (3, ends.outputs)
            with pytest.raises(UserError, match=f"gives {self.ENDS.outputs} outputs, not {ends.outputs}"):
                refitted(self.FAMILY, self.settings(), weights, ends, arch=one)

    def test_images_of_another_size_are_taken_or_refused_in_words(self):
        """Taken: by the supernet as by its subnets, which keep the weights that do not follow from the size."""
        chans, height, width = cast("tuple[int, int, int]", self.ENDS.input_shape)
        larger = Ends((chans, 2 * height, 2 * width), self.ENDS.outputs)
        supernet, arch = self.supernet(), self.space.largest()
        if self.FAMILY.for_ends is None:
            pytest.skip("networks of this family stay with their images")
        try:
            whole = refitted(self.FAMILY, self.settings(), supernet.state_dict(), larger, arch=None)
        except UserError as error:
            pytest.skip(str(error))
        subnet = refitted(self.FAMILY, self.settings(), supernet.extract(arch).state_dict(), larger, arch=arch)
        assert whole.fresh == subnet.fresh == ()
        inputs = torch.randn(3, *larger.input_shape, generator=torch.Generator().manual_seed(2))
        given = self.outputs_of(whole, arch, whole=True, inputs=inputs)
        torch.testing.assert_close(given, self.outputs_of(subnet, arch, whole=False, inputs=inputs), rtol=1e-4, atol=1e-5)
        same = refitted(self.FAMILY, self.settings(), supernet.state_dict(), self.ENDS, arch=None)
        assert all(torch.equal(same.weights[name], weight) for name, weight in supernet.state_dict().items())

    def outputs_of(self, made: Refitted, arch: Any, *, whole: bool, inputs: Tensor) -> Tensor:
        """What a refitted network gives: a subnet, or a ``whole`` supernet as ``arch``."""
        network: Any = self.FAMILY.supernet(**made.settings) if whole else None
        network = network or build_subnet(self.FAMILY, made.settings, arch.to_dict())
        network.load_state_dict(made.weights)
        with torch.no_grad():
            return network.eval()(inputs, arch) if whole else network.eval()(inputs)

    # --- what people see of it ---

    def test_every_choice_is_a_parameter_in_mlflow(self):
        tied = [choice.name for choice in self.space.choices if choice.tied]
        for arch in self.networks():
            params = architecture_params(arch)
            decisions = {name: value for name, value in self.space.to_params(arch).items() if not name.startswith(STRUCTURE)}
            for name, value in decisions.items():
                choice, *places = name.split(".")
                if choice in tied:
                    blocks = [told for param, told in params.items() if param.startswith(f"{choice}.")]
                    assert {*blocks} == {str(value)}
                    continue
                assert params[".".join([choice, *(f"{int(place):02}" for place in places)])] == str(value)
        most = architecture_params(self.space.largest())
        for axis in self.geometry.plotted:
            assert axis in most, f"plots have an axis {axis}, which candidates lack in MLflow; give the architecture a property"

    def test_every_choice_is_in_the_report(self, tmp_path: Path):
        for arch in self.networks():
            folder = tmp_path / arch.id
            folder.mkdir()
            page = write_report(folder, **self.searched(arch)).read_text()
            head = page.partition(f"<code>{arch.id}</code>")[2].partition("<h2>")[0]
            words = re.sub(r"<[^>]+>|[|·]", " ", head).split()
            for name, value in arch.to_dict().items():
                told = [name, *value_text(value).replace("|", " ").split()]
                assert any(words[i : i + len(told)] == told for i in range(len(words))), f"{told} is not in {words}"

    def searched(self, champion: Any) -> dict[str, Any]:
        """A search that asked two candidates, as the report is told of it."""
        others = [arch for arch in self.networks() if arch != champion][:1]
        candidates = [
            Candidate(
                Proposal(arch, index=i, generation=0, origin="random"),
                self.geometry.cost(arch),
                Result(0.9 - i / 10, 10, self.geometry.cost(arch).params, self.geometry.cost(arch).macs),
            )
            for i, arch in enumerate([champion, *others])
        ]

        def network(arch: Architecture) -> Network:
            cost = self.geometry.cost(arch)
            return Network(arch.id, arch.to_dict(), 0.9, 0.8, cost.params, cost.macs)

        summary = Summary(
            recipe="contract",
            seed=0,
            command="experiments/search.py",
            constraint="no limit",
            search_id="0" * 12,
            mlflow_run_id="0" * 32,
            counts=Counts(len(candidates), 10, 10, generations=1, test_images=10),
            seconds={"search": 1.0},
            training=Training(0, []),
            versions={},
            finished="2026-01-01T00:00:00+00:00",
            networks=Networks(network(champion), network(self.space.largest()), network(self.space.smallest())),
        )
        return {"summary": summary, "candidates": candidates}


STRUCTURE = ("depth", "skip")
"""Decisions that say which blocks there are: their other choices stand for them."""
