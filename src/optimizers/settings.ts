import { MendelError } from "../base/errors.ts";
import { suggestion } from "../base/suggest.ts";
import type { OptimizerDefinition, OptimizerSetting } from "./optimizer.ts";

/** Complete settings of an optimizer, by name. */
export type OptimizerSettings = Readonly<Record<string, number | boolean | string>>;

/**
 * Settings as a user wrote them, checked against the optimizer's own list and completed with its defaults.
 *
 * @throws MendelError `invalid-config` for an unknown name, a wrong type, a value out of range or an unknown choice
 */
export function completeSettings(
  definition: OptimizerDefinition,
  raw: Readonly<Record<string, unknown>>,
): OptimizerSettings {
  const names = definition.settings.map((setting) => setting.name);
  for (const name of Object.keys(raw)) {
    if (names.includes(name)) continue;
    throw new MendelError(
      "invalid-config",
      `the optimizer ${definition.name} has no setting "${name}"`,
      { hint: suggestion(name, names), where: { key: `optimizer.${name}` } },
    );
  }
  const entries = definition.settings.map((setting): [string, number | boolean | string] => {
    const value = raw[setting.name];
    return [setting.name, value === undefined ? setting.default : checked(setting, value)];
  });
  return Object.fromEntries(entries);
}

function checked(setting: OptimizerSetting, value: unknown): number | boolean | string {
  const problem = problemWith(setting, value);
  if (problem === undefined) return value as number | boolean | string;
  const key = `optimizer.${setting.name}`;
  const hint =
    setting.type === "choice" && typeof value === "string"
      ? suggestion(value, setting.choices ?? [])
      : setting.description;
  throw new MendelError("invalid-config", `${key}: ${problem}`, { hint, where: { key } });
}

function problemWith(setting: OptimizerSetting, value: unknown): string | undefined {
  const arrived = `got ${JSON.stringify(value)}`;
  if (setting.type === "boolean") {
    return typeof value === "boolean" ? undefined : `expected true or false, ${arrived}`;
  }
  if (setting.type === "choice") {
    const choices = setting.choices ?? [];
    const known = typeof value === "string" && choices.includes(value);
    return known ? undefined : `expected one of ${choices.join(", ")}, ${arrived}`;
  }
  const kind = setting.type === "integer" ? "an integer" : "a number";
  const fits = setting.type === "integer" ? Number.isSafeInteger(value) : Number.isFinite(value);
  if (typeof value !== "number" || !fits) return `expected ${kind}, ${arrived}`;
  const [low, high] = setting.range ?? [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY];
  if (value >= low && value <= high) return undefined;
  return `expected ${kind} in [${low}, ${high}], ${arrived}`;
}

/** A numeric setting; the settings are complete and checked, so its absence is a bug. */
export function numberSetting(settings: OptimizerSettings, name: string): number {
  const value = settings[name];
  if (typeof value !== "number") throw new Error(`no numeric setting "${name}"`);
  return value;
}

/** A setting that is true or false. */
export function booleanSetting(settings: OptimizerSettings, name: string): boolean {
  const value = settings[name];
  if (typeof value !== "boolean") throw new Error(`no boolean setting "${name}"`);
  return value;
}

/** A choice, as one of the names the caller can handle. */
export function choiceSetting<const C extends string>(
  settings: OptimizerSettings,
  name: string,
  choices: readonly C[],
): C {
  const chosen = choices.find((choice) => choice === settings[name]);
  if (chosen === undefined) throw new Error(`no choice "${name}"`);
  return chosen;
}
