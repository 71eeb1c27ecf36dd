"""The avatar inside of other frameworks, each in an extra: `livekit` and `pipecat`."""
