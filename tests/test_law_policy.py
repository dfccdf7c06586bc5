"""``alerts.preset``: the policy of agents without a team, which a preset of law may set."""

from __future__ import annotations

from callshield.settings import Settings
from notifier.policy import Policies
from notifier.rota import Teams


def policies(**tables: object) -> tuple[Policies, Teams]:
    settings = Settings(
        agents={"1001": {"uri": "sip:1001@192.0.2.20"}},
        supervisors={"kim": {"uri": "sip:2000@192.0.2.21"}},
        **tables,  # type: ignore[arg-type]
    )
    teams = Teams(settings)
    return Policies(settings, teams), teams


def test_agents_without_a_team_get_the_length_prompts_of_a_public_body() -> None:
    public, teams = policies(law={"preset": "kr-public"})
    policy = public.of("1001")
    assert (policy.length_notice_min, policy.length_end_min) == (15, 20)
    assert public.preset_of(teams.of("1001")) == "public"
    # Who is told stays what `alerts.level` says.
    assert (policy.level_1, policy.level_2, policy.level_3) == ("nobody", "all", "all")


def test_without_it_they_are_as_ever() -> None:
    plain, teams = policies()
    assert (plain.of("1001").length_notice_min, plain.of("1001").length_end_min) == (0, 0)
    assert plain.preset_of(teams.of("1001")) == "kr"


def test_the_operators_own_word_goes_before_the_presets() -> None:
    own, teams = policies(law={"preset": "kr-public"}, alerts={"preset": "kr"})
    assert own.of("1001").length_end_min == 0
    assert own.preset_of(teams.of("1001")) == "kr"
