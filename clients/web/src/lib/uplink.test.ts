import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Flag, Kind, type ResponseCreated, type ServerEvent } from "./protocol";
import { type Command, Uplink } from "./uplink";
import { decodeFrame, type WireFrame } from "./wire";

const RATE = 16_000;

function back(samples: number, { flags = 0, response = 1 } = {}): WireFrame {
  return {
    kind: Kind.Media,
    flags,
    seq: 0,
    ptsUs: 0,
    epoch: 0,
    response,
    audio: new Uint8Array(2 * samples),
    video: new Uint8Array(0),
  };
}

function created(index: number): ServerEvent {
  const event: ResponseCreated = {
    type: "response.created",
    event_id: "e",
    response_id: `r${index}`,
    response_index: index,
  };
  return event;
}

function done(index: number, status = "completed"): ServerEvent {
  return {
    type: "response.done",
    event_id: "e",
    response_id: `r${index}`,
    response_index: index,
    status,
    generated_ms: 0,
    sent_ms: 0,
    played_ms: null,
  } as ServerEvent;
}

const COMMIT: Command = { type: "input_audio_buffer.commit" };
const CANCEL: Command = { type: "response.cancel", fade_ms: 60 };

type Sent = { seq: number; samples: number[] } | { type: string; id: string };

/** Everything that may go now, in its order. */
function drain(uplink: Uplink, nowMs = 0): Sent[] {
  const sent: Sent[] = [];
  for (;;) {
    const next = uplink.next(nowMs);
    if (next === null || typeof next === "number") return sent;
    if (typeof next === "string") {
      const { type, event_id } = JSON.parse(next);
      sent.push({ type, id: event_id });
    } else {
      const { seq, audio } = decodeFrame(next);
      sent.push({ seq, samples: [...new Int16Array(audio.slice().buffer)] });
    }
  }
}

/** `seq` of audio, the type of a command. */
function brief(sent: Sent[]): (number | string)[] {
  return sent.map((item) => ("seq" in item ? item.seq : item.type));
}

function uplinkOf(limits: object = {}): Uplink {
  const uplink = new Uplink({ sampleRate: RATE });
  uplink.configure(limits, { chunk_ms: 0 });
  return uplink;
}

describe("Uplink", () => {
  it("cuts any audio into numbered messages without losing a sample", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 40_000 }), { maxLength: 6 }), (lengths) => {
        const uplink = uplinkOf();
        let sent = 0;
        let seq = 0;
        for (const length of lengths) {
          uplink.audio(new Int16Array(length));
          for (let next = uplink.next(0); next !== null; next = uplink.next(0)) {
            const frame = decodeFrame(next as ArrayBuffer);
            expect(frame.seq).toBe(seq);
            expect(frame.ptsUs).toBe(Math.round((sent * 1e6) / RATE));
            expect(frame.audio.length).toBeLessThanOrEqual(2 * 9_600);
            sent += frame.audio.length / 2;
            seq += 1;
          }
        }
        expect(sent).toBe(lengths.reduce((sum, length) => sum + length, 0));
        expect(uplink.backlogMs).toBe((sent * 1000) / RATE);
      }),
    );
  });

  it("counts what is on its way, idle frames apart", () => {
    const uplink = uplinkOf();
    uplink.audio(new Int16Array(1_600));
    drain(uplink);
    uplink.heard(created(1));
    uplink.returned(back(640, { flags: Flag.Idle }));
    expect(uplink.backlogMs).toBe(100);
    uplink.returned(back(640));
    expect(uplink.backlogMs).toBe(60);
    // Nothing more comes of it, whatever became of the rest.
    uplink.returned(back(320, { flags: Flag.Last }));
    expect(uplink.backlogMs).toBe(0);
  });

  it("forgets what a barge-in cut off, also what still comes of it, and numbers on", () => {
    const uplink = uplinkOf();
    uplink.audio(new Int16Array(1_600));
    drain(uplink);
    uplink.heard(created(1));
    uplink.command(CANCEL);
    expect(uplink.backlogMs).toBe(0);
    uplink.audio(new Int16Array(1_600));
    expect(brief(drain(uplink))).toEqual(["response.cancel", 1]);
    uplink.returned(back(640));
    expect(uplink.backlogMs).toBe(100);
    uplink.heard(done(1, "cancelled"));
    uplink.heard(created(2));
    uplink.returned(back(640, { response: 2 }));
    expect(uplink.backlogMs).toBe(60);
    uplink.restart();
    uplink.audio(new Int16Array(160));
    expect(brief(drain(uplink))).toEqual([0]);
  });

  it("does not wait for what a failed response will never return", () => {
    const uplink = uplinkOf();
    uplink.audio(new Int16Array(1_600));
    uplink.command(COMMIT);
    drain(uplink);
    uplink.heard(created(1));
    uplink.heard(done(1, "failed"));
    expect(uplink.backlogMs).toBe(0);
  });

  describe("the server's room", () => {
    it("is never exceeded, and every sample and command gets there in order", () => {
      const steps = fc.array(
        fc.oneof(fc.integer({ min: 1, max: 20_000 }), fc.constant("commit" as const)),
        { maxLength: 20 },
      );
      fc.assert(
        fc.property(steps, (list) => {
          const uplink = uplinkOf({ max_buffered_input_ms: 1_000 });
          let next = 0;
          let open = false;
          for (const step of list) {
            if (step === "commit") {
              if (open) uplink.command(COMMIT);
              open = false;
              continue;
            }
            uplink.audio(Int16Array.from({ length: step }, () => next++ & 0x7fff));
            open = true;
          }
          // A server that holds all it gets until nothing more comes, then returns it.
          const got: number[] = [];
          let index = 0;
          let begun = false;
          for (;;) {
            const sent = drain(uplink);
            if (sent.length === 0) break;
            let held = 0;
            for (const item of sent) {
              if ("type" in item) {
                uplink.heard({ type: "x", source_event_id: item.id } as unknown as ServerEvent);
                uplink.returned(back(0, { flags: Flag.Last, response: index }));
                uplink.heard(done(index));
                begun = false;
                continue;
              }
              if (!begun) uplink.heard(created(++index));
              begun = true;
              held += item.samples.length;
              got.push(...item.samples);
            }
            expect(held).toBeLessThanOrEqual(RATE);
            uplink.returned(back(RATE, { response: index }));
          }
          expect(got).toEqual(Array.from({ length: next }, (_, i) => i & 0x7fff));
        }),
        { numRuns: 50 },
      );
    });

    it("is waited for, then used", () => {
      const uplink = uplinkOf({ max_buffered_input_ms: 1_000 });
      uplink.audio(new Int16Array(3 * RATE));
      uplink.command(COMMIT);
      const first = drain(uplink);
      expect(brief(first)).toEqual([0, 1]);
      expect(uplink.heldMs).toBe(2_000);
      uplink.heard(created(1));
      uplink.returned(back(RATE / 2));
      expect(brief(drain(uplink))).toEqual([2]);
    });

    it("has a rate, which is kept", () => {
      const uplink = uplinkOf({ max_buffered_input_ms: 1_000, max_input_rate: 2 });
      const again = (): void => {
        uplink.heard(created(1));
        uplink.returned(back(RATE));
      };
      uplink.audio(new Int16Array(2 * RATE));
      drain(uplink);
      again();
      drain(uplink);
      again();
      const waitMs = uplink.next(0);
      expect(typeof waitMs).toBe("number");
      expect(uplink.next(waitMs as number)).toBeInstanceOf(ArrayBuffer);
    });

    it("does not make the line here endless", () => {
      const uplink = new Uplink({ sampleRate: RATE, maxHeldMs: 1_000 });
      uplink.configure({ max_buffered_input_ms: 1_000 }, { chunk_ms: 0 });
      expect(uplink.audio(new Int16Array(RATE))).toBe(true);
      expect(uplink.audio(new Int16Array(1))).toBe(false);
      drain(uplink);
      expect(uplink.audio(new Int16Array(1))).toBe(true);
      const commands = Array.from({ length: 1_000 }, () =>
        uplink.command({ type: "session.update", session: { idle: "loop" } }),
      );
      expect(commands.filter((taken) => taken).length).toBeLessThan(500);
      expect(uplink.command(CANCEL)).toBe(true);
    });
  });

  describe("after a resume", () => {
    it("sends again what the server has not taken, and nothing else", () => {
      const uplink = uplinkOf();
      const pieces = [1, 2, 3, 4].map((value) => new Int16Array(160).fill(value));
      for (const pcm of pieces) uplink.audio(pcm);
      uplink.command(COMMIT);
      drain(uplink);
      uplink.resumed({ received_seq: 1, lost_frames: 0 });
      const again = drain(uplink);
      expect(brief(again)).toEqual([2, 3, "input_audio_buffer.commit"]);
      expect(again[0]).toEqual({ seq: 2, samples: Array(160).fill(3) });
      expect(uplink.backlogMs).toBe(40);
    });

    it("sends all again when the server has nothing, and nothing when it cannot say", () => {
      for (const [received, expected] of [
        [null, [0, "input_audio_buffer.commit"]],
        [undefined, []],
      ] as const) {
        const uplink = uplinkOf();
        uplink.audio(new Int16Array(160));
        uplink.command(COMMIT);
        drain(uplink);
        const seq = received === undefined ? {} : { received_seq: received };
        uplink.resumed({ ...seq, lost_frames: 0 });
        expect(brief(drain(uplink))).toEqual(expected);
      }
    });

    it("says what was said meanwhile, behind what was lost", () => {
      const uplink = uplinkOf();
      uplink.audio(new Int16Array(160));
      drain(uplink);
      uplink.audio(new Int16Array(160));
      uplink.command(COMMIT);
      uplink.command({ type: "session.update", session: { idle: "loop" } });
      uplink.resumed({ received_seq: null, lost_frames: 0 });
      const again = brief(drain(uplink));
      expect(again).toEqual([0, 1, "input_audio_buffer.commit", "session.update"]);
    });

    it("sends a cancel and not what it makes void", () => {
      const uplink = uplinkOf();
      uplink.audio(new Int16Array(160));
      uplink.command(COMMIT);
      drain(uplink);
      uplink.command(CANCEL);
      uplink.resumed({ received_seq: null, lost_frames: 0 });
      expect(brief(drain(uplink))).toEqual(["response.cancel"]);
      // The server never heard of the first one: its first response is the second.
      uplink.audio(new Int16Array(160));
      drain(uplink);
      uplink.heard(created(1));
      uplink.returned(back(160));
      expect(uplink.backlogMs).toBe(0);
    });

    it("does not repeat what was answered, in time or with what was missed", () => {
      const uplink = uplinkOf();
      uplink.audio(new Int16Array(160));
      uplink.command(COMMIT);
      const sent = drain(uplink);
      const commit = sent[1] as { id: string };
      const committed = {
        type: "input_audio_buffer.committed",
        source_event_id: commit.id,
      } as unknown as ServerEvent;
      const refused = (id: string): ServerEvent =>
        ({
          type: "error",
          error: { type: "", message: "", code: "input_buffer_empty", event_id: id },
        }) as unknown as ServerEvent;
      uplink.resumed({ received_seq: 0, lost_frames: 0 });
      expect(brief(drain(uplink))).toEqual(["input_audio_buffer.commit"]);
      // It had been taken: its answer comes with what was missed, then the second one is refused.
      expect(uplink.heard(committed)).toBe(false);
      expect(uplink.heard(refused(commit.id))).toBe(true);
      expect(uplink.heard(refused("another"))).toBe(false);
      uplink.resumed({ received_seq: 0, lost_frames: 0 });
      expect(drain(uplink)).toEqual([]);
    });

    it("does not wait for the sound of lost frames", () => {
      const uplink = uplinkOf();
      uplink.audio(new Int16Array(RATE));
      drain(uplink);
      uplink.heard(created(1));
      uplink.resumed({ received_seq: 1, lost_frames: 10 });
      expect(uplink.backlogMs).toBe(600);
    });

    it("keeps no sound that came back", () => {
      const uplink = uplinkOf();
      for (let i = 0; i < 10; i++) uplink.audio(new Int16Array(160));
      drain(uplink);
      uplink.heard(created(1));
      uplink.returned(back(1_000));
      uplink.resumed({ received_seq: null, lost_frames: 0 });
      // Six whole messages are surely there; the seventh came back in part.
      expect(brief(drain(uplink))).toEqual([6, 7, 8, 9]);
    });

    it("loses nothing and doubles nothing, wherever the connection breaks", () => {
      const step = fc.oneof(
        fc.record({ samples: fc.integer({ min: 1, max: 30_000 }) }),
        fc.constant("commit" as const),
        fc.record({ breaksAfter: fc.nat(12) }),
      );
      fc.assert(
        fc.property(fc.array(step, { maxLength: 12 }), (list) => {
          const uplink = uplinkOf();
          let value = 0;
          let open = false;
          const expected: (number | string)[] = [];
          const taken: (number | string)[] = [];
          const known = new Set<string>();
          let receivedSeq: number | null = null;
          const take = (items: Sent[]): void => {
            for (const item of items) {
              if ("seq" in item) {
                receivedSeq = item.seq;
                taken.push(...item.samples);
              } else if (!known.has(item.id)) {
                // A second commit finds no open utterance: the server refuses it.
                known.add(item.id);
                taken.push(item.type);
              }
            }
          };
          for (const what of list) {
            if (what === "commit") {
              if (open) {
                uplink.command(COMMIT);
                expected.push("input_audio_buffer.commit");
              }
              open = false;
            } else if ("samples" in what) {
              const pcm = Int16Array.from({ length: what.samples }, () => value++ & 0x7fff);
              uplink.audio(pcm);
              expected.push(...pcm);
              open = true;
            } else {
              take(drain(uplink).slice(0, what.breaksAfter));
              uplink.resumed({ received_seq: receivedSeq, lost_frames: 0 });
            }
          }
          take(drain(uplink));
          expect(taken).toEqual(expected);
        }),
        { numRuns: 60 },
      );
    });
  });

  it("says what a session that cannot be resumed takes with it", () => {
    const uplink = uplinkOf();
    expect(uplink.restart()).toBeNull();
    uplink.audio(new Int16Array(RATE));
    drain(uplink);
    uplink.audio(new Int16Array(RATE));
    uplink.command(COMMIT);
    uplink.command({ type: "session.update", session: { idle: "loop" } });
    expect(uplink.restart()).toEqual({ speechMs: 2_000, commands: [COMMIT.type] });
    expect(drain(uplink)).toEqual([]);
    expect(uplink.restart()).toBeNull();
  });
});
