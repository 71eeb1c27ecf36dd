"""An utterance that its client begins and never commits: it holds neither a session nor a drain for
ever, and nothing of it is lost."""

from __future__ import annotations

from session_viewer import Viewer, check_close, configured
from virtual_session import RATE, opened

from visavis.server.housekeeping import UNFINISHED_S

# Numbered in pairs of samples.
SECOND = RATE // 2


def test_a_session_whose_utterance_is_never_committed_is_idle_once_that_was_spoken() -> None:
    with opened(max_sessions=1, idle_timeout_s=5.0) as server:
        viewer = Viewer(acknowledges=False)
        link = configured(server)
        for _ in range(8):
            viewer.speak(link, SECOND)
        # All of it came at once, and takes longer to say than one may idle.
        server.run(8.0)
        viewer.read(link)
        assert link.socket.open
        (heard,) = viewer.heard.values()
        assert len(heard.pairs) > 7 * SECOND
        server.run(7.0)
        viewer.read(link)
        assert link.socket.closed == (4408, "idle_timeout")
        check_close(link, said_goodbye=False)
        assert "idle" in viewer.warned
        assert not viewer.undone
        server.run(0.1)
        assert server.admission.active == 0


def test_a_drain_does_not_wait_for_the_end_of_an_utterance_that_nobody_goes_on_with() -> None:
    with opened(max_sessions=1) as server:
        viewer = Viewer(acknowledges=False)
        link = configured(server)
        # Its end is too short for a chunk: only what is committed is spoken to the last sample.
        viewer.speak(link, SECOND + 37)
        server.run(0.5)
        draining = server.drain(600.0)
        server.run(UNFINISHED_S + 5.0)
        viewer.read(link)
        assert draining.done()
        assert link.socket.closed == (1012, "server_draining")
        check_close(link, said_goodbye=False)
        (heard,) = viewer.heard.values()
        assert heard.status == "completed"
        assert heard.pairs == list(range(SECOND + 37))


def test_a_drain_waits_for_a_client_that_goes_on_speaking() -> None:
    with opened(max_sessions=1) as server:
        viewer = Viewer(acknowledges=False)
        link = configured(server)
        viewer.speak(link, SECOND)
        server.drain(600.0)
        for _ in range(5):
            # Longer than the avatar waits before it idles.
            server.run(UNFINISHED_S - 0.5)
            viewer.speak(link, SECOND)
        viewer.read(link)
        assert link.socket.open
        link.socket.say("input_audio_buffer.commit")
        server.run(5.0)
        viewer.read(link)
        assert link.socket.closed == (1012, "server_draining")
        viewer.check_audio()
        viewer.check_nothing_lost()
        assert [heard.status for heard in viewer.heard.values()] == ["completed"]
