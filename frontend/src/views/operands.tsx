import { isAllFinite, operandType, zerosText } from "../chain";
import { nonfiniteText } from "../evidence";
import { formatValue } from "../format";
import type { Operand } from "../protocol.gen";
import { useBeginning } from "./controls";
import { Name } from "./name";

const FIRST_OPERANDS = 6;

/** The inputs of an operation. */
export function Operands({ operands }: { readonly operands: ReadonlyArray<Operand> }) {
  const { shown, showAll } = useBeginning(operands, FIRST_OPERANDS, "inputs");
  return (
    <div>
      <div class="table-scroll">
        <table class="grid operands" data-testid="operands">
          <thead>
            <tr>
              <th scope="col">Input</th>
              <th scope="col">Type</th>
              <th scope="col">Min</th>
              <th scope="col">Max</th>
              <th scope="col">Zeros</th>
              <th scope="col">NaN, Inf</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((operand, index) => (
              <OperandRow key={index} operand={operand} />
            ))}
          </tbody>
        </table>
      </div>
      {showAll}
    </div>
  );
}

function OperandRow({ operand }: { readonly operand: Operand }) {
  return (
    <tr>
      <th scope="row">
        <Name text={operand.name} />
      </th>
      <td class="number">{operandType(operand)}</td>
      <td class="number">{formatValue(operand.min)}</td>
      <td class="number">{formatValue(operand.max)}</td>
      <td class="number">{zerosText(operand)}</td>
      <td class={isAllFinite(operand.counts) ? "number muted" : "number bad"}>
        {nonfiniteText(operand.counts)}
      </td>
    </tr>
  );
}
