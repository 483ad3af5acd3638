import { diagnose, type Finding } from "../../run/doctor.ts";
import { checkDatabase } from "../../store/check-database.ts";
import { printable } from "../output.ts";
import type { Verb } from "../verb.ts";

const marks = { ok: "ok", warning: "warn", problem: "FAIL" } as const;

function line(finding: Finding): string {
  const text = `${marks[finding.level].padEnd(5)} ${finding.name.padEnd(17)} ${finding.message}`;
  return finding.hint === undefined ? text : `${text}\n${" ".repeat(24)}${finding.hint}`;
}

export const doctor: Verb = {
  examples: ["doctor", "doctor --db runs/mendel.sqlite --json"],
  configure: () => undefined,
  async run({ output, db }) {
    const findings = [...(await diagnose(db)), checkDatabase(db)];
    output.print(printable(findings.map(line).join("\n")));
    const ok = findings.every((finding) => finding.level !== "problem");
    output.emit("doctor", { ok, findings });
    return ok ? 0 : 3;
  },
};
