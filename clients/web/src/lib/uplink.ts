/**
 * What goes to the server, in its order: audio, and the commands that stand between it. Audio is held
 * here while the server's buffer is full, and both are kept until the server surely has them, so that
 * a resume can send them again. No socket, and the clock is the caller's.
 */
import { InputRate } from "./flow";
import { Ledger, newUtterance, type Utterance } from "./ledger";
import type {
  AudioClear,
  AudioCommit,
  Limits,
  ResponseCancel,
  ServerEvent,
  SessionResumed,
  SessionUpdate,
  Timing,
} from "./protocol";
import { encodeAudioIn, type WireFrame } from "./wire";

/** Events that are kept until they are answered. */
export type Command = AudioCommit | AudioClear | ResponseCancel | SessionUpdate;

/** What a session that was lost for good has left undone. */
export interface Undelivered {
  /** Audio that was taken and has not come back as speech. */
  speechMs: number;
  /** Types of the commands that were not answered, but for settings: a new session has them. */
  commands: string[];
}

export interface UplinkOptions {
  /** Hz. */
  sampleRate: number;
  /** The most audio that waits here for the server. */
  maxHeldMs?: number;
}

interface Audio {
  pcm: Int16Array;
  utterance: Utterance;
  /** Set when it is sent for the first time. */
  seq: number | null;
  ptsUs: number;
}

interface Order {
  command: Command;
}

/** Samples of one AUDIO_IN message: well below any server's message limit. */
const MAX_MESSAGE_SAMPLES = 9_600;
const MAX_HELD_MS = 300_000;
const MAX_COMMANDS = 256;
/** A server takes a few more, and says so only by refusing the next. */
const MAX_UTTERANCES = 30;
const HALF_OF_SEQ = 2 ** 31;
/** The code of a commit that comes a second time. */
const DONE_ALREADY = "input_buffer_empty";

export class Uplink {
  readonly sampleRate: number;
  readonly #maxHeld: number;
  #ledger = new Ledger();
  /** What was sent and may be needed again, then what waits. */
  #line: (Audio | Order)[] = [];
  /** The first in the line that is to be sent. */
  #next = 0;
  /** Samples that were never sent. */
  #held = 0;
  #open: Utterance | null = null;
  #seq = 0;
  #sentSamples = 0;
  #commands = 0;
  /** Ids of commands that may have been carried out before the connection was lost. */
  #repeated = new Set<string>();
  #credit = Number.POSITIVE_INFINITY;
  #rate: InputRate | null = null;

  constructor({ sampleRate, maxHeldMs = MAX_HELD_MS }: UplinkOptions) {
    this.sampleRate = sampleRate;
    this.#maxHeld = (maxHeldMs * sampleRate) / 1000;
  }

  /** Milliseconds of audio that were taken and have not come back with frames. */
  get backlogMs(): number {
    return this.#ms(this.#held + this.#ledger.outstanding);
  }

  /** Milliseconds of audio that wait here. */
  get heldMs(): number {
    return this.#ms(this.#held);
  }

  /** A `response.cancel` was given and has not been answered. */
  get cancelling(): boolean {
    return this.#orders().some(({ command }) => command.type === "response.cancel");
  }

  /** What the server announced for the session. */
  configure(limits?: Partial<Limits> | null, timing?: Partial<Timing> | null): void {
    const { max_buffered_input_ms: limitMs, max_input_rate: rate } = limits ?? {};
    if (limitMs === undefined) return;
    // The server counts a chunk's audio until the chunk is whole, when its frames are here.
    const creditMs = Math.max(limitMs - (timing?.chunk_ms ?? 0), limitMs / 4);
    this.#credit = (creditMs * this.sampleRate) / 1000;
    this.#rate = rate === undefined ? null : new InputRate(rate, limitMs / 1000);
  }

  /** Takes mono PCM16 for the utterance that is open; false, and nothing, when too much waits. */
  audio(pcm: Int16Array): boolean {
    if (this.#held + pcm.length > this.#maxHeld) return false;
    this.#open ??= newUtterance();
    const size = Math.max(1, Math.min(MAX_MESSAGE_SAMPLES, Math.floor(this.#credit / 2)));
    for (let at = 0; at < pcm.length; at += size) {
      const piece = pcm.slice(at, at + size);
      this.#line.push({ pcm: piece, utterance: this.#open, seq: null, ptsUs: 0 });
    }
    this.#held += pcm.length;
    return true;
  }

  /**
   * Takes a command, to be sent after what was taken before; false when too many wait. A cancel
   * makes all of that void but for changes of settings, and so goes at once.
   */
  command(command: Command): boolean {
    const { type } = command;
    if (type === "response.cancel") this.#cancel();
    else if (this.#orders().length >= MAX_COMMANDS) return false;
    if (type === "input_audio_buffer.commit") this.#open = null;
    if (type === "input_audio_buffer.clear") this.#clear();
    this.#commands += 1;
    this.#line.push({ command: { ...command, event_id: `c${this.#commands}` } });
    return true;
  }

  /**
   * The message to send now; or the milliseconds to wait for the next; or null when none is left, or
   * the server has to give something back first.
   */
  next(nowMs: number): ArrayBuffer | string | number | null {
    const item = this.#line[this.#next];
    if (!item) return null;
    if ("command" in item) {
      this.#next += 1;
      return JSON.stringify(item.command);
    }
    if (item.seq === null && !this.#fits(item)) return null;
    const waitMs = this.#rate?.take(item.pcm.length / this.sampleRate, nowMs) ?? 0;
    if (waitMs > 0) return waitMs;
    const seq = item.seq ?? this.#number(item);
    this.#next += 1;
    return encodeAudioIn(seq, item.ptsUs, item.pcm);
  }

  /** A frame came back with its sound. */
  returned(frame: WireFrame): void {
    this.#ledger.returned(frame);
    this.#forgetReturned();
  }

  /** Follows what the server says; true for its refusal of something that it had done already. */
  heard(event: ServerEvent): boolean {
    const id = event.type === "error" ? event.error.event_id : event.source_event_id;
    if (id) this.#answered(id);
    if (event.type === "response.created") this.#ledger.created(event.response_index);
    if (event.type === "input_audio_buffer.cleared") {
      this.#ledger.cleared((event.dropped_ms * this.sampleRate) / 1000);
    }
    if (event.type === "response.done") {
      this.#ledger.done(event.response_index);
      this.#forgetReturned();
    }
    if (event.type !== "error" || event.error.code !== DONE_ALREADY) return false;
    return this.#repeated.has(event.error.event_id ?? "");
  }

  /**
   * The session goes on on another socket: what the server has not taken is to be sent again. `fps`
   * is that of its timeline.
   */
  resumed(event: Pick<SessionResumed, "received_seq" | "lost_frames">, fps = 25): void {
    const { received_seq: received, lost_frames: lost } = event;
    // A server that does not say what it took has to be believed to have all of it.
    this.#drop(received === undefined ? this.#next : this.#positionAfter(received));
    const again = this.#line.slice(0, this.#next);
    this.#repeated = new Set(again.flatMap((item) => ("command" in item ? idOf(item) : [])));
    this.#next = 0;
    if (received !== undefined) {
      this.#ledger.resumed((seq) => received !== null && (received - seq) >>> 0 < HALF_OF_SEQ);
    }
    this.#ledger.framesLost(((lost ?? 0) * this.sampleRate) / fps);
  }

  /** A new session counts anew; what the last one has left undone is dropped, and returned. */
  restart(): Undelivered | null {
    const speechMs = this.backlogMs;
    const commands = this.#orders()
      .map(({ command }) => command.type)
      .filter((type) => type !== "session.update");
    this.#ledger = new Ledger();
    this.#line = [];
    this.#next = 0;
    this.#held = 0;
    this.#open = null;
    this.#seq = 0;
    this.#sentSamples = 0;
    this.#repeated.clear();
    return speechMs > 0 || commands.length > 0 ? { speechMs, commands } : null;
  }

  #ms(samples: number): number {
    return (samples * 1000) / this.sampleRate;
  }

  #orders(): Order[] {
    return this.#line.filter((item) => "command" in item);
  }

  #fits({ pcm, utterance }: Audio): boolean {
    const opens = utterance.firstSeq === null || utterance.over;
    if (opens && this.#ledger.count >= MAX_UTTERANCES) return false;
    const { outstanding } = this.#ledger;
    return outstanding === 0 || outstanding + pcm.length <= this.#credit;
  }

  /** Gives audio that was never sent its number. */
  #number(item: Audio): number {
    if (item.utterance.over) this.#renew(item.utterance);
    const seq = this.#seq;
    item.seq = seq;
    item.ptsUs = Math.round((this.#sentSamples * 1e6) / this.sampleRate);
    this.#seq = (seq + 1) >>> 0;
    this.#sentSamples += item.pcm.length;
    this.#held -= item.pcm.length;
    this.#ledger.sent(item.utterance, item.pcm.length, seq);
    return seq;
  }

  /** The server ended an utterance early: what was to follow begins another one. */
  #renew(ended: Utterance): void {
    const fresh = newUtterance();
    for (const item of this.#line.slice(this.#next)) {
      if ("pcm" in item && item.utterance === ended) item.utterance = fresh;
    }
    if (this.#open === ended) this.#open = fresh;
  }

  #cancel(): void {
    const keep = (item: Audio | Order): boolean =>
      "command" in item && item.command.type === "session.update";
    this.#next = this.#line.slice(0, this.#next).filter(keep).length;
    this.#line = this.#line.filter(keep);
    this.#held = 0;
    this.#open = null;
    this.#ledger.cancelled();
  }

  /** What was not sent of the open utterance need not be. */
  #clear(): void {
    const utterance = this.#open;
    this.#line = this.#line.filter((item) => {
      const cleared = "pcm" in item && item.seq === null && item.utterance === utterance;
      if (cleared) this.#held -= item.pcm.length;
      return !cleared;
    });
  }

  /** The command of that id was carried out or refused: so was all before it, in its order. */
  #answered(id: string): void {
    const sent = this.#line.slice(0, this.#next);
    this.#drop(sent.findIndex((item) => "command" in item && idOf(item) === id) + 1);
  }

  /** Sound that came back is not needed again, and neither is what was sent before it. */
  #forgetReturned(): void {
    const sent = this.#line.slice(0, this.#next);
    let left = sent.reduce((sum, item) => sum + ("pcm" in item ? item.pcm.length : 0), 0);
    let surplus = 0;
    const { unreturned } = this.#ledger;
    for (const [i, item] of sent.entries()) {
      if (!("pcm" in item)) continue;
      left -= item.pcm.length;
      if (left < unreturned) break;
      surplus = i + 1;
    }
    this.#drop(surplus);
  }

  /** The place in the line behind the audio of that number; 0 when it is there no more. */
  #positionAfter(seq: number | null): number {
    for (let i = this.#next - 1; i >= 0; i--) {
      const item = this.#line[i];
      if (item && "pcm" in item && item.seq === seq) return i + 1;
    }
    return 0;
  }

  #drop(count: number): void {
    if (count === 0) return;
    this.#line.splice(0, count);
    this.#next = Math.max(0, this.#next - count);
  }
}

function idOf({ command }: Order): string {
  return command.event_id ?? "";
}
