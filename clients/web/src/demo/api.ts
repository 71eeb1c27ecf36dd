/** The server's REST side, and the files that the page itself brings along. */
import type { ErrorBody } from "../lib";

export interface Avatar {
  id: string;
  name: string;
  imageUrl: string;
  builtin: boolean;
  /** What the server noticed about the photo, such as a small face. */
  warnings: string[];
  /** Who made the picture, and under which licence. */
  credit: string;
}

export interface Sample {
  id: string;
  title: string;
  url: string;
  seconds: number | null;
}

/** A request that failed, with the server's own words where it had any. */
export class ApiError extends Error {
  override name = "ApiError";

  constructor(
    message: string,
    readonly code: string,
    readonly status: number,
  ) {
    super(message);
  }
}

interface AvatarJson {
  id: string;
  name?: string;
  image_url?: string;
  builtin?: boolean;
  warnings?: string[];
  credit?: string | null;
}

interface SampleJson {
  id?: string;
  title?: string;
  file: string;
  seconds?: number;
}

export async function listAvatars(): Promise<Avatar[]> {
  const body = (await request("/v1/avatars")) as { data?: AvatarJson[] };
  return (body.data ?? []).map(toAvatar);
}

export async function uploadAvatar(image: File): Promise<Avatar> {
  const form = new FormData();
  form.set("file", image);
  form.set("name", nameOf(image));
  return toAvatar((await request("/v1/avatars", { method: "POST", body: form })) as AvatarJson);
}

export async function deleteAvatar(id: string): Promise<void> {
  await request(`/v1/avatars/${encodeURIComponent(id)}`, { method: "DELETE" });
}

/** The bundled recordings; none when this build carries none. */
export async function listSamples(): Promise<Sample[]> {
  const response = await fetch("/samples/index.json");
  const isJson = response.headers.get("content-type")?.includes("json");
  if (!response.ok || !isJson) return [];
  const samples = (await response.json()) as SampleJson[];
  return samples.map((sample) => ({
    id: sample.id ?? sample.file,
    title: sample.title ?? sample.file,
    url: `/samples/${sample.file}`,
    seconds: sample.seconds ?? null,
  }));
}

/** Where the page's own server listens for sessions. */
export function sessionUrl(): string {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}/v1/realtime/avatar`;
}

function toAvatar(json: AvatarJson): Avatar {
  return {
    id: json.id,
    name: json.name || json.id,
    imageUrl: json.image_url ?? `/v1/avatars/${encodeURIComponent(json.id)}/image`,
    builtin: json.builtin ?? false,
    warnings: json.warnings ?? [],
    credit: json.credit ?? "",
  };
}

function nameOf(file: File): string {
  const stem = file.name
    .replace(/\.[^.]*$/, "")
    .replace(/[_-]+/g, " ")
    .trim();
  return (stem || "My portrait").slice(0, 40);
}

async function request(path: string, init?: RequestInit): Promise<unknown> {
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new ApiError("The server does not answer.", "unreachable", 0);
  }
  const text = await response.text();
  const body = parsed(text);
  if (response.ok) return body;
  const error = (body as { error?: Partial<ErrorBody> } | null)?.error;
  throw new ApiError(
    error?.message ?? `The server answered ${response.status} ${response.statusText}.`,
    error?.code ?? "http",
    response.status,
  );
}

function parsed(text: string): unknown {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}
