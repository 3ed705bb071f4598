"""Networks: a stack is n ordinary MLPs, only faster; and it may be spread over devices."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from core.networks import StackedMLP
from core.team.adam import Adam
from core.team.spread import SpreadMLP, make_stack, resolve_device
from core.utils import gumbel_noise, mask_logits, masked_mean, soft_update

ROOT = Path(__file__).resolve().parents[1]
SIZES = (4, 8, 5, 2)
CPU, ALSO_CPU = torch.device("cpu"), torch.device("cpu:0")  # the same processor, but two devices to PyTorch


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def separate_mlps(stack: StackedMLP) -> list[nn.Sequential]:
    """The members of a stack as ordinary networks of `nn.Linear`."""
    mlps = []
    for member in range(stack.members):
        layers = []
        for weight, bias in stack.layers:
            linear = nn.Linear(weight.shape[1], weight.shape[2])
            linear.weight.data.copy_(weight[member].T)
            linear.bias.data.copy_(bias[member, 0])
            layers += [linear, nn.ReLU()]
        mlps.append(nn.Sequential(*layers[:-1]))
    return mlps


def gradient_of(mlp: nn.Sequential) -> torch.Tensor:
    """A network's gradient in the order of a stack's rows: weight (in, out), then bias, layer by layer."""
    linears = [layer for layer in mlp if isinstance(layer, nn.Linear)]
    return torch.cat([g for layer in linears for g in (layer.weight.grad.T.flatten(), layer.bias.grad)])


# --- a stack is n separate networks -----------------------------------------------------------------------------------


def test_a_stack_equals_separate_networks_in_values_and_gradients():
    stack = StackedMLP(3, SIZES, seeded())
    inputs, goals = torch.randn(3, 10, 4), torch.randn(3, 10, 2)
    outputs = stack(inputs)
    (outputs - goals).square().sum().backward()
    for member, mlp in enumerate(separate_mlps(stack)):
        expected = mlp(inputs[member])
        (expected - goals[member]).square().sum().backward()
        torch.testing.assert_close(outputs[member], expected)
        gradient = torch.cat([rows[member] for rows in stack.by_member(stack.flat.grad)])
        torch.testing.assert_close(gradient, gradient_of(mlp))
        torch.testing.assert_close(stack.gradient_norms()[member], gradient_of(mlp).norm())


def test_one_optimizer_step_on_the_flat_vector_moves_every_member_as_its_own_optimizer_would():
    stack = StackedMLP(2, SIZES, seeded())
    mlps = separate_mlps(stack)
    inputs = torch.randn(2, 10, 4)
    stack(inputs).square().sum().backward()
    Adam([stack.flat], lr=0.01, eps=1e-8).step()
    for member, mlp in enumerate(mlps):
        mlp(inputs[member]).square().sum().backward()
        torch.optim.Adam(mlp.parameters(), lr=0.01).step()
        torch.testing.assert_close(stack(inputs)[member], mlp(inputs[member]))


def test_adam_takes_the_steps_of_pytorchs_own_bit_for_bit_also_where_it_was_saved_and_goes_on():
    ours, theirs = (torch.randn(300, generator=seeded()).requires_grad_() for _ in range(2))
    adam, reference = Adam([ours], 1e-3, 1e-5), torch.optim.Adam([theirs], 1e-3, eps=1e-5, fused=True)
    generator = seeded(1)
    for step in range(20):
        ours.grad = torch.randn(300, generator=generator) * 10.0 ** (step % 5 - 2)
        theirs.grad = ours.grad.clone()
        if step == 10:
            saved, adam = adam.state_dict(), Adam([ours], 1e-3, 1e-5)
            adam.load_state_dict(saved)
        adam.param_groups[0]["lr"] = reference.param_groups[0]["lr"] = 1e-3 * (1.0 - step / 40)
        adam.step()
        reference.step()
        assert torch.equal(ours, theirs), step


def test_building_a_team_does_not_load_pytorchs_compiler():
    look = (
        "import sys, core.maddpg; core.maddpg.create_maddpg_agents(3, 1, 2); sys.exit('torch._dynamo' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", look], cwd=ROOT).returncode == 0


def test_one_input_is_shown_to_all_members_and_one_member_serves_all_inputs():
    stack, shared = StackedMLP(3, SIZES, seeded()), StackedMLP(1, SIZES, seeded())
    one, three = torch.randn(1, 6, 4), torch.randn(3, 6, 4)
    torch.testing.assert_close(stack(one), stack(one.repeat(3, 1, 1)))
    torch.testing.assert_close(shared(three), torch.stack([shared(group.unsqueeze(0))[0] for group in three]))


def test_an_id_that_picks_a_row_of_the_weights_answers_and_learns_as_one_that_is_multiplied():
    inputs, ids, gradients = torch.randn(4, 6, 3), torch.eye(4).unsqueeze(1).expand(-1, 6, -1), []
    stack = StackedMLP(1, (3 + 4, 8, 2), seeded())
    picked, multiplied = stack(inputs, ids=True), stack(torch.cat([inputs, ids], dim=-1))
    torch.testing.assert_close(picked, multiplied)
    for answers in (picked, multiplied):
        stack.flat.grad.zero_()
        answers.square().sum().backward()
        gradients.append(stack.flat.grad.clone())
    torch.testing.assert_close(*gradients)


def test_a_member_answers_alone_as_it_does_in_the_stack():
    stack, shared, inputs = StackedMLP(3, SIZES, seeded()), StackedMLP(1, SIZES, seeded()), torch.randn(3, 6, 4)
    for member in range(3):
        torch.testing.assert_close(stack.member(member, inputs[member]), stack(inputs)[member])
        torch.testing.assert_close(shared.member(member, inputs[member]), shared(inputs)[member])


def test_a_frozen_stack_gives_gradients_to_its_inputs_only():
    stack = StackedMLP(2, SIZES, seeded())
    inputs = torch.randn(2, 6, 4, requires_grad=True)
    stack(inputs, frozen=True).sum().backward()
    frozen_gradient = inputs.grad.clone()
    assert not stack.flat.grad.any() and frozen_gradient.abs().sum() > 0
    inputs.grad = None
    stack(inputs).sum().backward()
    torch.testing.assert_close(inputs.grad, frozen_gradient)
    assert stack.flat.grad.any()


def test_scaling_gradients_is_done_member_by_member():
    stack = StackedMLP(2, SIZES, seeded())
    stack(torch.randn(2, 6, 4)).sum().backward()
    before = stack.gradient_norms()
    stack.scale_gradients(torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(stack.gradient_norms(), before * torch.tensor([0.5, 2.0]))


def test_initial_weights_are_orthogonal_repeatable_and_small_at_the_end_when_asked():
    stack, again = StackedMLP(2, SIZES, seeded(3), output_gain=0.01), StackedMLP(2, SIZES, seeded(3), output_gain=0.01)
    torch.testing.assert_close(stack.flat, again.flat)
    first, last = stack.layers[0][0][0], stack.layers[-1][0][0]  # (4, 8) and (5, 2)
    torch.testing.assert_close(first @ first.T, 2.0 * torch.eye(4), atol=1e-5, rtol=0)  # gain sqrt(2)
    torch.testing.assert_close(last.T @ last, 1e-4 * torch.eye(2), atol=1e-7, rtol=0)
    assert not torch.equal(stack.layers[0][0][0], stack.layers[0][0][1])  # members differ
    assert not any(bias.any() for _, bias in stack.layers)


# --- spread over devices ----------------------------------------------------------------------------------------------


def spread_and_stacked() -> tuple[SpreadMLP, StackedMLP]:
    spread = make_stack(3, SIZES, seeded(), [CPU, ALSO_CPU, CPU])
    return spread, make_stack(3, SIZES, seeded(), [CPU] * 3)


def test_a_spread_stack_equals_the_stack_on_one_device():
    spread, stack = spread_and_stacked()
    assert isinstance(spread, SpreadMLP) and [part.members for part in spread.stacks()] == [2, 1]
    inputs, goals = torch.randn(3, 6, 4), torch.randn(3, 6, 2)
    torch.testing.assert_close(spread(inputs), stack(inputs))
    torch.testing.assert_close(spread(inputs[:1]), stack(inputs[:1]))
    for network in (spread, stack):
        (network(inputs) - goals).square().sum().backward()
    for part in spread.stacks():
        torch.testing.assert_close(part.gradient_norms(), stack.gradient_norms()[part.owners])
    for member in range(3):
        torch.testing.assert_close(spread.member(member, inputs[member]), stack.member(member, inputs[member]))
    with pytest.raises(IndexError, match="member 3 of 3"):
        spread.member(3, inputs[0])


def test_a_spread_stack_takes_over_the_parameters_of_another():
    spread, _ = spread_and_stacked()
    other = make_stack(3, SIZES, seeded(9), [CPU, ALSO_CPU, CPU])
    inputs = torch.randn(3, 6, 4)
    assert not torch.allclose(other(inputs), spread(inputs))
    torch.testing.assert_close(other.copy_from(spread)(inputs), spread(inputs))


def test_a_stack_is_spread_only_when_there_is_something_to_spread():
    assert isinstance(make_stack(1, SIZES, seeded(), [CPU, ALSO_CPU]), StackedMLP)  # one shared network
    spread = make_stack(3, SIZES, seeded(), [CPU, ALSO_CPU, CPU])
    assert [part.owners for part in spread.stacks()] == [[0, 2], [1]]


# --- the functions that networks are used with ------------------------------------------------------------------------


def test_soft_update_moves_the_target_by_tau():
    target, source = torch.tensor([0.0, 10.0]), torch.tensor([1.0, 0.0])
    soft_update([target], [source], 0.1)
    torch.testing.assert_close(target, torch.tensor([0.1, 9.0]))
    torch.testing.assert_close(source, torch.tensor([1.0, 0.0]))


def test_masked_mean_counts_only_what_is_active_and_is_zero_where_nothing_is():
    values, weights = torch.tensor([1.0, 5.0, 100.0]), torch.tensor([1.0, 1.0, 0.0])
    assert masked_mean(values, weights) == 3.0
    assert masked_mean(values, torch.zeros(3)) == 0.0


def test_gumbel_noise_turns_argmax_into_a_draw_from_the_softmax_that_never_picks_an_illegal_action():
    logits = torch.tensor([1.0, 0.0, 3.0, -1.0])
    masks = torch.tensor([True, True, False, True])
    draws = (mask_logits(logits, masks) + gumbel_noise((40_000, 4), seeded())).argmax(dim=-1)
    frequencies = torch.bincount(draws, minlength=4) / 40_000
    expected = torch.softmax(logits.masked_fill(~masks, -torch.inf), dim=-1)
    assert frequencies[2] == 0.0
    torch.testing.assert_close(frequencies, expected, atol=0.01, rtol=0)


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(device):
    with pytest.raises(ValueError, match="device: .*(expected auto|was asked for)"):
        resolve_device(device)


@pytest.mark.parametrize("device", ["mps", "xpu", "meta"])
def test_a_device_that_is_not_supported_is_refused_with_those_that_are(device):
    with pytest.raises(ValueError, match=f"device: this project computes on cpu and cuda, found '{device}'"):
        resolve_device(device)


def test_no_device_means_the_cpu():
    assert resolve_device(None) == CPU and resolve_device("auto").type in ("cpu", "cuda")
