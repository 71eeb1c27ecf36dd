import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Connection } from "./connection";
import { CapacityError, ConnectionLostError, ExpiredError, NotFoundError } from "./errors";
import { Flag, Kind } from "./protocol";
import type { ConnectionStatus } from "./status";
import { encodeFrame } from "./wire";

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

function start(options: { token?: string } = {}): {
  connection: Connection;
  sockets: FakeSocket[];
  statuses: ConnectionStatus[];
} {
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
  void connection.connect();
  return { connection, sockets, statuses };
}

/** Waits for the token and for timers of `ms`. */
async function pass(ms = 0): Promise<void> {
  await vi.advanceTimersByTimeAsync(ms);
}

function goLive(socket: FakeSocket | undefined, resume: typeof OFFER | null = OFFER): void {
  socket?.open();
  socket?.say({ type: "session.created", session_id: "s1", limits: {}, timing: {}, resume });
  socket?.say({ type: "session.updated", event_id: "e2", session: SETTINGS });
}

function mediaFrame(seq: number): ArrayBuffer {
  return encodeFrame({
    kind: Kind.Media,
    flags: Flag.Idle,
    seq,
    ptsUs: 0,
    epoch: 0,
    response: 0,
    audio: new Uint8Array(0),
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
