// Rounds the float32 tensors of a safetensors file to bfloat16 (nearest, ties to even); other tensors are kept as they are.
// This is how the expert models of examples/tinylm were made small.
//
// usage: node scripts/to-bf16.mjs in.safetensors out.safetensors
import { readFileSync, writeFileSync } from "node:fs";

const [input, output] = process.argv.slice(2);
if (input === undefined || output === undefined) {
  console.error("usage: node scripts/to-bf16.mjs in.safetensors out.safetensors");
  process.exit(2);
}

const file = readFileSync(input);
const headerLength = Number(file.readBigUInt64LE(0));
const header = JSON.parse(file.toString("utf8", 8, 8 + headerLength));
const { __metadata__: metadata = {}, ...tensors } = header;

const names = Object.keys(tensors).sort((a, b) => (a < b ? -1 : 1));
const parts = [];
const entries = { __metadata__: metadata };
let offset = 0;
for (const name of names) {
  const { dtype, shape, data_offsets: span } = tensors[name];
  const bytes = file.subarray(8 + headerLength + span[0], 8 + headerLength + span[1]);
  const part = dtype === "F32" ? roundToBf16(bytes) : bytes;
  const storedDtype = dtype === "F32" ? "BF16" : dtype;
  entries[name] = { dtype: storedDtype, shape, data_offsets: [offset, offset + part.length] };
  parts.push(part);
  offset += part.length;
}

const text = JSON.stringify(entries);
const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8, " "));
const length = Buffer.alloc(8);
length.writeBigUInt64LE(BigInt(padded.length));
writeFileSync(output, Buffer.concat([length, padded, ...parts]));

/** The upper 16 bits of each float32, after adding half of the last kept place (minus one when that place is even). */
function roundToBf16(bytes) {
  const rounded = Buffer.alloc(bytes.length / 2);
  for (let i = 0; i < rounded.length; i += 2) {
    const bits = bytes.readUInt32LE(2 * i);
    const notANumber = (bits & 0x7fffffff) > 0x7f800000;
    const value = notANumber ? (bits >>> 16) | 0x40 : (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
    rounded.writeUInt16LE(value & 0xffff, i);
  }
  return rounded;
}
