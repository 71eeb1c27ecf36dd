/**
 * Energy gate for an open microphone: decides when an utterance begins and when it has ended.
 * It sees one level per audio block and says what to do with that block.
 */

export interface GateOptions {
  /** Decibels above the noise floor at which speech begins. */
  openDb: number;
  /** Decibels above the noise floor below which the silence clock runs. */
  closeDb: number;
  /** Speech never begins below this level, in dBFS. */
  minimumDb: number;
  /** Loud for this long before an utterance begins. */
  attackMs: number;
  /** Quiet for this long ends it. */
  hangMs: number;
  /** An utterance is cut after this long, so that a noisy room cannot hold it open. */
  maximumMs: number;
}

export const GATE_DEFAULTS: GateOptions = {
  openDb: 12,
  closeDb: 7,
  minimumDb: -52,
  attackMs: 60,
  hangMs: 700,
  maximumMs: 30_000,
};

export type GateDecision = "closed" | "opened" | "open" | "ended";

const FLOOR_START_DB = -60;
// The floor follows a quieter room at once and a louder one slowly (about 3 dB a second).
const FLOOR_RISE_DB_PER_MS = 0.003;

export class EnergyGate {
  readonly options: GateOptions;
  #floorDb = FLOOR_START_DB;
  #open = false;
  #loudMs = 0;
  #quietMs = 0;
  #openMs = 0;
  #quietestDb = 0;

  constructor(options: Partial<GateOptions> = {}) {
    this.options = { ...GATE_DEFAULTS, ...options };
  }

  get isOpen(): boolean {
    return this.#open;
  }

  get floorDb(): number {
    return this.#floorDb;
  }

  /** `extraDb` raises the bar, for instance while loudspeakers play. */
  push(levelDb: number, blockMs: number, extraDb = 0): GateDecision {
    return this.#open
      ? this.#whileOpen(levelDb, blockMs)
      : this.#whileClosed(levelDb, blockMs, extraDb);
  }

  /** Forget the current utterance, keep the noise floor. */
  close(): void {
    this.#open = false;
    this.#loudMs = 0;
    this.#quietMs = 0;
    this.#openMs = 0;
    this.#quietestDb = 0;
  }

  #whileClosed(levelDb: number, blockMs: number, extraDb: number): GateDecision {
    const { openDb, minimumDb, attackMs } = this.options;
    const loud = levelDb > Math.max(this.#floorDb + openDb, minimumDb) + extraDb;
    this.#loudMs = loud ? this.#loudMs + blockMs : 0;
    if (this.#loudMs >= attackMs) {
      this.close();
      this.#open = true;
      return "opened";
    }
    if (levelDb < this.#floorDb) this.#floorDb = levelDb;
    else this.#floorDb = Math.min(levelDb, this.#floorDb + FLOOR_RISE_DB_PER_MS * blockMs);
    return "closed";
  }

  #whileOpen(levelDb: number, blockMs: number): GateDecision {
    const { closeDb, minimumDb, hangMs, maximumMs } = this.options;
    const quiet = levelDb < Math.max(this.#floorDb + closeDb, minimumDb - 3);
    this.#quietMs = quiet ? this.#quietMs + blockMs : 0;
    this.#openMs += blockMs;
    this.#quietestDb = Math.min(this.#quietestDb, levelDb);
    if (this.#quietMs < hangMs && this.#openMs < maximumMs) return "open";
    // Cut for its length: the room itself is loud, so its quietest moment is the new floor.
    if (this.#quietMs < hangMs) this.#floorDb = this.#quietestDb;
    this.close();
    return "ended";
  }
}
