// Writes "./session" in the package's types as "./session.js": what Node's own resolution wants, which
// bundlers take as well. The compiler leaves addresses as the sources have them.
import { readdir, readFile, writeFile } from "node:fs/promises";

const FOLDER = new URL("build/types/", import.meta.url);
const RELATIVE = /(from|import\()(\s*)"(\.{1,2}\/[^"]+?)(?:\.js)?"/g;

for (const name of await readdir(FOLDER)) {
  const file = new URL(name, FOLDER);
  const text = await readFile(file, "utf8");
  await writeFile(file, text.replace(RELATIVE, '$1$2"$3.js"'));
}
