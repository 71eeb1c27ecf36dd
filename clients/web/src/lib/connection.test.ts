import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Connection } from "./connection";
import {
  type AvatarError,
  CapacityError,
  ConnectionLostError,
  ExpiredError,
  NotFoundError,
  SpeechLostError,
} from "./errors";
import { Flag, Kind } from "./protocol";
import type { ConnectionStatus } from "./status";
import { decodeFrame, encodeFrame } from "./wire";

/** The other end of the line. */
class FakeSocket {
  readyState = 0;
  bufferedAmount = 0;
  binaryType = "blob";
  readonly sent: unknown[] = [];
  onopen: () => void = () => {};
  onmessage: (event: { data: string | ArrayBuffer }) => void = () => {};
  onclose: (event: { code: number }) => void = () => {};

  constructor(readonly protocols: string[]) {}

  send(data: string | ArrayBuffer): void {
    this.sent.push(typeof data === "string" ? JSON.parse(data) : data);
  }

  close(): void {
    this.readyState = 3;
  }

  open(): void {
    this.readyState = 1;
    this.onopen();
  }

  say(event: object): void {
    this.onmessage({ data: JSON.stringify(event) });
  }

  lose(code: number): void {
    this.readyState = 3;
    this.onclose({ code });
  }
}

const SETTINGS = { output: { video: "jpeg", codec: "jpeg", fps: 25, width: 256, height: 256 } };
const OFFER = { handle: "h1", ttl_s: 30 };

function start(options: { token?: string; maxHeldMs?: number } = {}): {
  connection: Connection;
  sockets: FakeSocket[];
  statuses: ConnectionStatus[];
  errors: AvatarError[];
} {
  const errors: AvatarError[] = [];
  const sockets: FakeSocket[] = [];
  const statuses: ConnectionStatus[] = [];
  const connection = new Connection({
    url: "ws://test",
    settings: { avatar_id: "clara", input_audio: { format: "pcm16", rate: 24_000 } },
    backoff: { baseMs: 100, maxMs: 1_000, random: () => 1 },
    createSocket: (_url, protocols) => {
      const socket = new FakeSocket(protocols);
      sockets.push(socket);
      return socket as unknown as WebSocket;
    },
    ...options,
  });
  connection.on("status", (status) => statuses.push(status));
  connection.on("error", (error) => errors.push(error));
  void connection.connect();
  return { connection, sockets, statuses, errors };
}

/** Waits for the token and for timers of `ms`. */
async function pass(ms = 0): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

function goLive(socket: FakeSocket | undefined, resume: typeof OFFER | null = OFFER): void {
  socket?.open();
  answer(socket, resume);
}

function answer(socket: FakeSocket | undefined, resume: typeof OFFER | null = OFFER): void {
  socket?.say({ type: "session.created", session_id: "s1", limits: {}, timing: {}, resume });
  socket?.say({ type: "session.updated", event_id: "e2", session: SETTINGS });
}

/** What was said on a socket: `seq` of audio, the type of an event. */
function said(socket: FakeSocket | undefined): (number | string)[] {
  return (socket?.sent ?? []).map((message) =>
    message instanceof ArrayBuffer ? decodeFrame(message).seq : (message as { type: string }).type,
  );
}

function idOf(event: unknown): string {
  return (event as { event_id: string }).event_id;
}

function resumed(socket: FakeSocket | undefined, fields: object = {}): void {
  const offer = { handle: "h2", ttl_s: 30 };
  const event = { type: "session.resumed", session_id: "s1", session: SETTINGS, resume: offer };
  socket?.say({ ...event, lost_frames: 0, received_seq: null, ...fields });
}

function engineRestarts(socket: FakeSocket | undefined, retryAfterS: number): void {
  const error = { type: "engine_error", code: "engine_restarting", message: "it restarts" };
  socket?.say({ type: "error", error: { ...error, retry_after_s: retryAfterS } });
  socket?.lose(1012);
}

const COMMIT = { type: "input_audio_buffer.commit" } as const;
const CANCEL = { type: "response.cancel", fade_ms: 60 } as const;

/** Of the first response, or an idle one without `samples`. */
function mediaFrame(seq: number, samples = 0): ArrayBuffer {
  return encodeFrame({
    kind: Kind.Media,
    flags: samples > 0 ? 0 : Flag.Idle,
    seq,
    ptsUs: 0,
    epoch: 0,
    response: samples > 0 ? 1 : 0,
    audio: new Uint8Array(2 * samples),
    video: Uint8Array.of(1),
  });
}

describe("Connection", () => {
  beforeEach(() => {
    vi.useFakeTimers();
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  it("greets, waits in line, loads, and is live", async () => {
    const { connection, sockets, statuses } = start();
    await pass();
    const [socket] = sockets;
    socket?.open();
    expect(socket?.sent[0]).toMatchObject({ type: "session.update" });
    socket?.say({ type: "session.queued", position: 2, eta_s: 40 });
    socket?.say({ type: "session.loading", stage: "avatar", progress: 0.5 });
    goLive(socket);
    expect(statuses.map(({ state }) => state)).toEqual(["connecting", "queued", "loading", "live"]);
    expect(statuses[1]).toEqual({ state: "queued", position: 2, etaS: 40 });
    expect(connection.live).toBe(true);
  });

  it("sends the token as a subprotocol", async () => {
    const { sockets } = start({ token: "abc" });
    await pass();
    expect(sockets[0]?.protocols).toEqual(["avatar.v1", "avatar.auth.abc"]);
  });

  it("takes audio only while it is live", async () => {
    const { connection, sockets } = start();
    await pass();
    expect(connection.sendAudio(new Int16Array(480))).toBe(false);
    goLive(sockets[0]);
    expect(connection.sendAudio(new Int16Array(24_000))).toBe(true);
    expect(connection.backlogMs).toBe(1_000);
  });

  it("resumes a held session with the last frame that came", async () => {
    const { sockets, statuses } = start();
    await pass();
    goLive(sockets[0]);
    sockets[0]?.onmessage({ data: mediaFrame(77) });
    sockets[0]?.lose(1006);
    expect(statuses.at(-1)).toMatchObject({ state: "reconnecting", resuming: true, delayMs: 100 });
    await pass(100);
    sockets[1]?.open();
    expect(sockets[1]?.sent[0]).toEqual({
      type: "session.resume",
      handle: "h1",
      last_seq: 77,
      last_event_id: "e2",
    });
    sockets[1]?.say({
      type: "session.resumed",
      session_id: "s1",
      session: SETTINGS,
      resume: { handle: "h2", ttl_s: 30 },
    });
    expect(statuses.at(-1)).toMatchObject({ state: "live", resumed: true });
    sockets[1]?.lose(1012);
    await pass(100);
    sockets[2]?.open();
    expect(sockets[2]?.sent[0]).toMatchObject({ handle: "h2" });
  });

  it.each([4403, 4404])("opens a new session when the resume is refused with %i", async (code) => {
    const { sockets, statuses } = start();
    await pass();
    goLive(sockets[0]);
    sockets[0]?.lose(1006);
    await pass(100);
    sockets[1]?.open();
    sockets[1]?.lose(code);
    expect(statuses.at(-1)).toMatchObject({ state: "reconnecting", resuming: false });
    await pass(1_000);
    sockets[2]?.open();
    expect(sockets[2]?.sent[0]).toMatchObject({ type: "session.update" });
  });

  it("opens a new session when the server holds none, or held it too long ago", async () => {
    const { sockets } = start();
    await pass();
    goLive(sockets[0], null);
    sockets[0]?.lose(1006);
    await pass(100);
    goLive(sockets[1], { handle: "h", ttl_s: 0.05 });
    sockets[1]?.lose(1006);
    await pass(100);
    sockets[2]?.open();
    expect(sockets[1]?.sent[0]).toMatchObject({ type: "session.update" });
    expect(sockets[2]?.sent[0]).toMatchObject({ type: "session.update" });
  });

  it("opens a new session after a drain that is not to be resumed", async () => {
    const { sockets, statuses } = start();
    await pass();
    goLive(sockets[0]);
    sockets[0]?.say({ type: "session.expiring", reason: "server_draining", deadline_s: 5 });
    sockets[0]?.lose(1012);
    expect(statuses.at(-1)).toMatchObject({ state: "reconnecting", resuming: false });
    await pass(100);
    sockets[1]?.open();
    expect(sockets[1]?.sent[0]).toMatchObject({ type: "session.update" });
  });

  it("resumes after a drain that can be, when the server says", async () => {
    const { sockets, statuses } = start();
    await pass();
    goLive(sockets[0]);
    sockets[0]?.say({
      type: "session.expiring",
      reason: "server_draining",
      deadline_s: 5,
      resumable: true,
    });
    const error = {
      type: "server_error",
      code: "server_draining",
      message: "bye",
      retry_after_s: 2,
    };
    sockets[0]?.say({ type: "error", error });
    sockets[0]?.lose(1012);
    expect(statuses.at(-1)).toMatchObject({
      state: "reconnecting",
      resuming: true,
      delayMs: 2_000,
    });
    await pass(2_000);
    sockets[1]?.open();
    expect(sockets[1]?.sent[0]).toMatchObject({ type: "session.resume", handle: "h1" });
  });

  it("resumes with what the server has not taken, then what was said meanwhile", async () => {
    const { connection, sockets, errors } = start();
    await pass();
    goLive(sockets[0]);
    for (let i = 0; i < 3; i++) connection.sendAudio(new Int16Array(480));
    sockets[0]?.lose(1006);
    expect(connection.sendAudio(new Int16Array(480))).toBe(true);
    expect(connection.command(COMMIT)).toBe(true);
    await pass(100);
    sockets[1]?.open();
    expect(said(sockets[1])).toEqual(["session.resume"]);
    resumed(sockets[1], { received_seq: 0 });
    expect(said(sockets[1])).toEqual(["session.resume", 1, 2, 3, COMMIT.type]);
    expect(connection.backlogMs).toBe(80);
    expect(errors).toEqual([]);
  });

  it("delivers a cancel that was given while the connection was lost", async () => {
    const { connection, sockets } = start();
    await pass();
    goLive(sockets[0]);
    connection.sendAudio(new Int16Array(480));
    connection.command(COMMIT);
    sockets[0]?.lose(1006);
    expect(connection.command(CANCEL)).toBe(true);
    expect(connection.cancelling).toBe(true);
    await pass(100);
    sockets[1]?.open();
    resumed(sockets[1], { received_seq: 0 });
    expect(said(sockets[1])).toEqual(["session.resume", CANCEL.type]);
    const event_id = idOf(sockets[1]?.sent[1]);
    sockets[1]?.say({ type: "output.cleared", epoch: 1, source_event_id: event_id });
    expect(connection.cancelling).toBe(false);
  });

  it("says what is lost with a session that cannot be resumed", async () => {
    const { connection, sockets, errors, statuses } = start();
    await pass();
    goLive(sockets[0]);
    connection.sendAudio(new Int16Array(24_000));
    connection.command(COMMIT);
    sockets[0]?.lose(1006);
    await pass(100);
    sockets[1]?.open();
    sockets[1]?.lose(4404);
    expect(statuses.at(-1)).toMatchObject({ state: "reconnecting", resuming: false });
    expect(errors).toHaveLength(1);
    expect(errors[0]).toBeInstanceOf(SpeechLostError);
    expect(errors[0]).toMatchObject({
      code: "speech_lost",
      speechMs: 1_000,
      commands: [COMMIT.type],
    });
    expect(connection.sendAudio(new Int16Array(480))).toBe(false);
    expect(connection.command(COMMIT)).toBe(false);
    await pass(1_000);
    goLive(sockets[2]);
    expect(said(sockets[2])).toEqual(["session.update"]);
    connection.sendAudio(new Int16Array(480));
    expect(said(sockets[2])).toEqual(["session.update", 0]);
  });

  it("takes a refused repetition for the answer that it is", async () => {
    const { connection, sockets, errors } = start();
    await pass();
    goLive(sockets[0]);
    connection.sendAudio(new Int16Array(480));
    connection.command(COMMIT);
    sockets[0]?.lose(1006);
    await pass(100);
    sockets[1]?.open();
    resumed(sockets[1], { received_seq: 0 });
    const event_id = idOf(sockets[1]?.sent[1]);
    const error = { type: "invalid_request_error", code: "input_buffer_empty", message: "none" };
    sockets[1]?.say({ type: "error", error: { ...error, event_id } });
    expect(errors).toEqual([]);
    sockets[1]?.say({ type: "error", error });
    expect(errors).toHaveLength(1);
  });

  it.each([1001, 1005, 1006, 1012])("resumes after %i", async (code) => {
    const { sockets } = start();
    await pass();
    goLive(sockets[0]);
    sockets[0]?.lose(code);
    await pass(100);
    sockets[1]?.open();
    expect(said(sockets[1])).toEqual(["session.resume"]);
  });

  it("still resumes after tries that did not reach the server", async () => {
    const { sockets } = start();
    await pass();
    goLive(sockets[0]);
    sockets[0]?.lose(1006);
    await pass(100);
    sockets[1]?.lose(1006);
    await pass(200);
    sockets[2]?.open();
    expect(said(sockets[2])).toEqual(["session.resume"]);
  });

  it("waits for an engine that restarts, longer than a session is kept otherwise", async () => {
    const { sockets, statuses } = start();
    await pass();
    goLive(sockets[0]);
    sockets[0]?.say({
      type: "session.expiring",
      reason: "engine_restarting",
      deadline_s: 0,
      resumable: true,
    });
    engineRestarts(sockets[0], 60);
    for (const next of [1, 2]) {
      expect(statuses.at(-1)).toMatchObject({
        state: "reconnecting",
        resuming: true,
        delayMs: 60_000,
      });
      await pass(60_000);
      sockets[next]?.open();
      expect(said(sockets[next])).toEqual(["session.resume"]);
      if (next === 1) engineRestarts(sockets[next], 60);
    }
    resumed(sockets[2]);
    expect(statuses.at(-1)).toMatchObject({ state: "live", resumed: true });
  });

  it("stays with the session while another server fetches it", async () => {
    const { sockets, statuses } = start();
    await pass();
    goLive(sockets[0]);
    sockets[0]?.lose(1012);
    await pass(100);
    sockets[1]?.open();
    sockets[1]?.say({ type: "session.created", session_id: "s9", limits: {}, resume: null });
    sockets[1]?.say({ type: "session.loading", stage: "avatar", progress: 0.5 });
    expect(statuses.at(-1)).toMatchObject({ state: "reconnecting", resuming: true });
    resumed(sockets[1]);
    expect(statuses.at(-1)).toMatchObject({ state: "live", resumed: true });
  });

  it("takes audio faster than the server does, up to a bound, and says when that is reached", async () => {
    const { connection, sockets, errors } = start({ maxHeldMs: 3_000 });
    await pass();
    const [socket] = sockets;
    socket?.open();
    const limits = { max_buffered_input_ms: 1_000, max_input_rate: 20 };
    socket?.say({ type: "session.created", session_id: "s", limits, timing: {}, resume: OFFER });
    socket?.say({ type: "session.updated", event_id: "e2", session: SETTINGS });
    expect(connection.sendAudio(new Int16Array(72_000))).toBe(true);
    const bytes = (): number =>
      (socket?.sent ?? []).reduce<number>(
        (sum, message) =>
          message instanceof ArrayBuffer ? sum + decodeFrame(message).audio.length : sum,
        0,
      );
    expect(bytes()).toBeLessThanOrEqual(48_000);
    const more = Array.from({ length: 30 }, () => connection.sendAudio(new Int16Array(2_400)));
    expect(more.filter((taken) => taken).length).toBeLessThan(30);
    expect(errors.map(({ code }) => code)).toEqual(["input_held_full"]);
    const takenBytes = 2 * (72_000 + 2_400 * more.filter((taken) => taken).length);
    socket?.say({ type: "response.created", response_index: 1 });
    for (let seq = 0; seq < 200; seq++) {
      socket?.onmessage({ data: mediaFrame(seq, 960) });
      await pass(40);
    }
    expect(bytes()).toBe(takenBytes);
    expect(connection.backlogMs).toBe(0);
    expect(connection.sendAudio(new Int16Array(480))).toBe(true);
  });

  it("changes settings of the session, and of the next one", async () => {
    const { connection, sockets } = start();
    await pass();
    sockets[0]?.open();
    connection.update({ idle: "freeze" });
    answer(sockets[0]);
    // What came too late for the first word comes as soon as it is heard.
    expect(sockets[0]?.sent.slice(1)).toMatchObject([
      { type: "session.update", session: { idle: "freeze" } },
    ]);
    connection.update({ on_disconnect: "end" });
    sockets[0]?.say({
      type: "session.updated",
      session: { ...SETTINGS, on_disconnect: "end" },
    });
    sockets[0]?.lose(1006);
    await pass(100);
    sockets[1]?.open();
    expect(sockets[1]?.sent[0]).toMatchObject({
      type: "session.update",
      session: { avatar_id: "clara", idle: "freeze", on_disconnect: "end" },
    });
    answer(sockets[1]);
    expect(said(sockets[1])).toEqual(["session.update"]);
  });

  it("waits as long as a full server asks for", async () => {
    const { sockets, statuses } = start();
    await pass();
    sockets[0]?.open();
    const error = { type: "capacity_error", code: "capacity", message: "full", retry_after_s: 7 };
    sockets[0]?.say({ type: "error", error });
    sockets[0]?.lose(4429);
    expect(statuses.at(-1)).toMatchObject({ state: "reconnecting", delayMs: 7_000 });
    const last = statuses.at(-1);
    expect(last?.state === "reconnecting" && last.error).toBeInstanceOf(CapacityError);
    await pass(6_999);
    expect(sockets).toHaveLength(1);
    await pass(1);
    expect(sockets).toHaveLength(2);
  });

  it.each([
    [4404, "refused", NotFoundError],
    [4408, "expired", ExpiredError],
    [4410, "expired", ExpiredError],
  ] as const)("close code %i ends it as %s", async (code, state, kind) => {
    const { sockets, statuses } = start();
    await pass();
    sockets[0]?.open();
    sockets[0]?.lose(code);
    const last = statuses.at(-1);
    expect(last?.state).toBe(state);
    expect(last && "error" in last && last.error).toBeInstanceOf(kind);
    await pass(60_000);
    expect(sockets).toHaveLength(1);
  });

  it("does not blame an old refusal for a later loss", async () => {
    const { sockets, statuses } = start();
    await pass();
    goLive(sockets[0]);
    const error = { type: "invalid_request_error", code: "input_buffer_empty", message: "empty" };
    sockets[0]?.say({ type: "error", error });
    await pass(5_000);
    sockets[0]?.lose(1006);
    const last = statuses.at(-1);
    expect(last?.state === "reconnecting" && last.error).toBeInstanceOf(ConnectionLostError);
  });

  it("gives up a server that says nothing at all", async () => {
    const { sockets, statuses } = start();
    await pass();
    goLive(sockets[0]);
    await pass(15_000);
    expect(sockets[0]?.sent.at(-1)).toMatchObject({ type: "session.ping" });
    await pass(6_000);
    expect(statuses.some(({ state }) => state === "reconnecting")).toBe(true);
    expect(sockets.length).toBeGreaterThan(1);
  });

  it("stays closed", async () => {
    const { connection, sockets, statuses } = start();
    await pass();
    goLive(sockets[0]);
    connection.close();
    await pass(60_000);
    expect(sockets).toHaveLength(1);
    expect(sockets[0]?.sent.at(-1)).toMatchObject({ type: "session.close" });
    expect(statuses.at(-1)?.state).toBe("closed");
  });

  it("outlives anything that a server may send", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.oneof(
            fc.string(),
            fc.json(),
            fc
              .record(
                {
                  type: fc.constantFrom("error", "session.updated", "session.created", "x"),
                  error: fc.jsonValue(),
                  session: fc.jsonValue(),
                  resume: fc.constantFrom(null, undefined),
                },
                { requiredKeys: ["type"] },
              )
              .map((event) => JSON.stringify(event)),
            fc.uint8Array({ maxLength: 80 }).map((bytes) => new Uint8Array(bytes).buffer),
          ),
          { maxLength: 20 },
        ),
        async (messages) => {
          const { connection, sockets } = start();
          await pass();
          goLive(sockets[0]);
          for (const data of messages) sockets[0]?.onmessage({ data });
          expect(connection.live).toBe(true);
          connection.close();
        },
      ),
      { numRuns: 60 },
    );
  });
});
