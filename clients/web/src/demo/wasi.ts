/**
 * As much of WASI preview 1 as a command-line synthesiser needs: arguments, a clock, standard
 * output, and files that live in memory. Pure: bytes in, bytes out.
 */

const SUCCESS = 0;
const BAD_DESCRIPTOR = 8;
const NOT_FOUND = 44;
const DIRECTORY = 3;
const REGULAR_FILE = 4;
const ROOT_DESCRIPTOR = 3;
const FIRST_FILE = 4;
const CREATE = 1;
const TRUNCATE = 8;

class ProgramExit extends Error {
  constructor(readonly code: number) {
    super(`exit ${code}`);
  }
}

interface OpenFile {
  name: string;
  position: number;
}

class MemoryFile {
  #bytes = new Uint8Array(64 * 1024);
  length = 0;

  write(at: number, data: Uint8Array): void {
    const end = at + data.length;
    if (end > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(end, this.#bytes.length * 2));
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes.set(data, at);
    this.length = Math.max(this.length, end);
  }

  read(at: number, count: number): Uint8Array {
    return this.#bytes.subarray(at, Math.min(this.length, at + count));
  }

  bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.slice(0, this.length);
  }
}

/** Runs `module` once with these arguments; returns the files that it wrote. Throws on failure. */
export async function runProgram(
  module: WebAssembly.Module,
  args: readonly string[],
): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
  const program = new Program(args);
  const instance = await WebAssembly.instantiate(module, {
    wasi_snapshot_preview1: program.imports(),
  });
  const { memory, _start } = instance.exports;
  if (!(memory instanceof WebAssembly.Memory) || typeof _start !== "function") {
    throw new Error("the module is no WASI command: it exports no memory or no _start");
  }
  program.memory = memory;
  try {
    _start();
  } catch (error) {
    if (!(error instanceof ProgramExit)) throw error;
    if (error.code !== 0) throw new Error(`${args[0]} failed: ${program.said.trim()}`);
  }
  if (program.files.size === 0) throw new Error(`${args[0]} wrote nothing: ${program.said.trim()}`);
  return new Map([...program.files].map(([name, file]) => [name, file.bytes()]));
}

class Program {
  memory: WebAssembly.Memory | null = null;
  readonly files = new Map<string, MemoryFile>();
  /** Standard output and standard error. */
  said = "";
  readonly #open = new Map<number, OpenFile>();
  readonly #args: Uint8Array[];
  #nextDescriptor = FIRST_FILE;

  constructor(args: readonly string[]) {
    const encoder = new TextEncoder();
    this.#args = args.map((arg) => encoder.encode(`${arg}\0`));
  }

  imports(): WebAssembly.ModuleImports {
    return {
      args_sizes_get: (count: number, size: number) => {
        this.#view.setUint32(count, this.#args.length, true);
        const bytes = this.#args.reduce((sum, arg) => sum + arg.length, 0);
        this.#view.setUint32(size, bytes, true);
        return SUCCESS;
      },
      args_get: (pointers: number, buffer: number) => this.#writeArgs(pointers, buffer),
      clock_time_get: (_id: number, _precision: bigint, result: number) => {
        this.#view.setBigUint64(result, BigInt(Math.round(performance.now() * 1e6)), true);
        return SUCCESS;
      },
      fd_close: (descriptor: number) => {
        this.#open.delete(descriptor);
        return SUCCESS;
      },
      fd_fdstat_get: (descriptor: number, result: number) => this.#status(descriptor, result),
      fd_fdstat_set_flags: () => SUCCESS,
      fd_prestat_get: (descriptor: number, result: number) => {
        if (descriptor !== ROOT_DESCRIPTOR) return BAD_DESCRIPTOR;
        this.#view.setUint32(result, 0, true);
        this.#view.setUint32(result + 4, 1, true);
        return SUCCESS;
      },
      fd_prestat_dir_name: (descriptor: number, path: number) => {
        if (descriptor !== ROOT_DESCRIPTOR) return BAD_DESCRIPTOR;
        this.#view.setUint8(path, "/".charCodeAt(0));
        return SUCCESS;
      },
      fd_read: (descriptor: number, vectors: number, count: number, result: number) =>
        this.#read(descriptor, vectors, count, result),
      fd_write: (descriptor: number, vectors: number, count: number, result: number) =>
        this.#write(descriptor, vectors, count, result),
      fd_seek: (descriptor: number, offset: bigint, whence: number, result: number) =>
        this.#seek(descriptor, Number(offset), whence, result),
      path_open: (
        _root: number,
        _lookup: number,
        path: number,
        pathLength: number,
        flags: number,
        _rights: bigint,
        _inheriting: bigint,
        _descriptorFlags: number,
        result: number,
      ) => this.#openPath(path, pathLength, flags, result),
      proc_exit: (code: number) => {
        throw new ProgramExit(code);
      },
    };
  }

  /** Anew for every call: the memory moves when it grows. */
  get #view(): DataView {
    return new DataView(this.#buffer);
  }

  get #buffer(): ArrayBuffer {
    if (!this.memory) throw new Error("the program has not started");
    return this.memory.buffer;
  }

  #writeArgs(pointers: number, buffer: number): number {
    let at = buffer;
    for (const [i, arg] of this.#args.entries()) {
      this.#view.setUint32(pointers + 4 * i, at, true);
      new Uint8Array(this.#buffer).set(arg, at);
      at += arg.length;
    }
    return SUCCESS;
  }

  #status(descriptor: number, result: number): number {
    const isFile = this.#open.has(descriptor) || descriptor < ROOT_DESCRIPTOR;
    if (!isFile && descriptor !== ROOT_DESCRIPTOR) return BAD_DESCRIPTOR;
    new Uint8Array(this.#buffer, result, 24).fill(0);
    this.#view.setUint8(result, isFile ? REGULAR_FILE : DIRECTORY);
    this.#view.setBigUint64(result + 8, 0xffff_ffff_ffff_ffffn, true);
    this.#view.setBigUint64(result + 16, 0xffff_ffff_ffff_ffffn, true);
    return SUCCESS;
  }

  #openPath(path: number, length: number, flags: number, result: number): number {
    const name = new TextDecoder().decode(new Uint8Array(this.#buffer, path, length).slice());
    if (!this.files.has(name) && (flags & CREATE) === 0) return NOT_FOUND;
    if (!this.files.has(name) || (flags & TRUNCATE) !== 0) this.files.set(name, new MemoryFile());
    const descriptor = this.#nextDescriptor;
    this.#nextDescriptor += 1;
    this.#open.set(descriptor, { name, position: 0 });
    this.#view.setUint32(result, descriptor, true);
    return SUCCESS;
  }

  *#pieces(vectors: number, count: number): Generator<Uint8Array> {
    for (let i = 0; i < count; i++) {
      const at = this.#view.getUint32(vectors + 8 * i, true);
      const length = this.#view.getUint32(vectors + 8 * i + 4, true);
      yield new Uint8Array(this.#buffer, at, length);
    }
  }

  #write(descriptor: number, vectors: number, count: number, result: number): number {
    const open = this.#open.get(descriptor);
    const file = open && this.files.get(open.name);
    let written = 0;
    for (const piece of this.#pieces(vectors, count)) {
      if (open && file) {
        file.write(open.position, piece);
        open.position += piece.length;
      } else if (descriptor < ROOT_DESCRIPTOR) {
        this.said += new TextDecoder().decode(piece.slice());
      } else {
        return BAD_DESCRIPTOR;
      }
      written += piece.length;
    }
    this.#view.setUint32(result, written, true);
    return SUCCESS;
  }

  #read(descriptor: number, vectors: number, count: number, result: number): number {
    const open = this.#open.get(descriptor);
    const file = open && this.files.get(open.name);
    let read = 0;
    if (open && file) {
      for (const piece of this.#pieces(vectors, count)) {
        const data = file.read(open.position, piece.length);
        piece.set(data);
        open.position += data.length;
        read += data.length;
      }
    }
    this.#view.setUint32(result, read, true);
    return SUCCESS;
  }

  #seek(descriptor: number, offset: number, whence: number, result: number): number {
    const open = this.#open.get(descriptor);
    const file = open && this.files.get(open.name);
    if (!open || !file) return BAD_DESCRIPTOR;
    open.position = [0, open.position, file.length][whence] ?? 0;
    open.position += offset;
    this.#view.setBigUint64(result, BigInt(open.position), true);
    return SUCCESS;
  }
}
