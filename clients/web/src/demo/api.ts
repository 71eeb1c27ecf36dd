/** The server's REST side, and the files that the page itself brings along. */
import { AvatarError, errorFromBody } from "../lib";
import { accessKey } from "./access";

export interface Avatar {
  id: string;
  name: string;
  imageUrl: string;
  builtin: boolean;
  /** What the server noticed about the photo, such as a small face. */
  warnings: string[];
  /** Who made the picture, and under which licence. */
  credit: string;
  /** Whether the person shown has agreed; null when nobody said. */
  consent: boolean | null;
}

export interface Sample {
  id: string;
  title: string;
  url: string;
  seconds: number | null;
}

interface AvatarJson {
  id: string;
  name?: string;
  image_url?: string;
  builtin?: boolean;
  warnings?: string[];
  credit?: string | null;
  consent?: boolean | null;
}

interface SampleJson {
  id?: string;
  title?: string;
  file: string;
  seconds?: number;
}

/** Throws AvatarError, like all requests here. */
export async function listAvatars(): Promise<Avatar[]> {
  const body = (await request("/v1/avatars")) as { data?: AvatarJson[] };
  return (body.data ?? []).map(toAvatar);
}

/** `consent`: the person in the photo agrees. Servers refuse an upload without it. */
export async function uploadAvatar(image: File, consent: boolean): Promise<Avatar> {
  const form = new FormData();
  form.set("file", image);
  form.set("name", nameOf(image));
  form.set("consent", String(consent));
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
    consent: json.consent ?? null,
  };
}

function nameOf(file: File): string {
  const stem = file.name
    .replace(/\.[^.]*$/, "")
    .replace(/[_-]+/g, " ")
    .trim();
  return (stem || "My portrait").slice(0, 40);
}

async function request(path: string, init: RequestInit = {}): Promise<unknown> {
  const headers = new Headers(init.headers);
  const key = accessKey();
  if (key) headers.set("Authorization", `Bearer ${key}`);
  let response: Response;
  try {
    response = await fetch(path, { ...init, headers });
  } catch {
    throw new AvatarError({
      code: "connection_lost",
      message: "the server does not answer",
      retryable: true,
    });
  }
  const body = parsed(await response.text());
  if (response.ok) return body;
  throw errorFromBody({
    type: "",
    code: `http_${response.status}`,
    message: `the server answered ${response.status} ${response.statusText}`,
    ...(body as { error?: object } | null)?.error,
  });
}

function parsed(text: string): unknown {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}
