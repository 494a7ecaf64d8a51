"""The calculator: arithmetic by walking the expression's tree, never by running it. Pure, and bounded in size and work.

Numbers are fractions as long as that is possible, so that 0.1 + 0.2 is 0.3; roots, logarithms and the like give floats.
"""

from __future__ import annotations

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from decimal import Decimal, localcontext
from fractions import Fraction

LONGEST = 500
"""Characters of an expression."""
MOST_BITS = 4_096
"""Of a numerator or denominator."""
_MOST_NODES = 250
_SHOWN = 30
"""Significant digits of a result that is no whole number."""

_SPELLINGS = {ord("^"): "**", 0xD7: "*", 0xF7: "/", 0x2212: "-"}
"""Signs that people write instead."""

Number = Fraction | float


class CannotCalculate(Exception):
    """The expression is none, or asks for too much. The message is for its author."""


def calculate(expression: str) -> str:
    """The value of an expression. Raises CannotCalculate."""
    if len(expression) > LONGEST:
        raise CannotCalculate(f"an expression has at most {LONGEST} characters")
    text = expression.translate(_SPELLINGS).strip()
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd spellings
            tree = ast.parse(text, mode="eval")
        if sum(1 for _ in ast.walk(tree)) > _MOST_NODES:
            raise CannotCalculate("the expression has too many parts")
        return _shown(_value(tree.body))
    except (SyntaxError, RecursionError, MemoryError):
        raise CannotCalculate("this is no arithmetic expression") from None
    except ZeroDivisionError:
        raise CannotCalculate("a division by zero") from None
    except (OverflowError, ValueError):
        raise CannotCalculate("a number is too large, or a function is not defined there") from None


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=bool()):
            raise CannotCalculate("only numbers are calculated with")
        case ast.Constant(value=int() as whole):
            return _bounded(Fraction(whole))
        case ast.Constant(value=float() as given):
            if not math.isfinite(given):
                raise OverflowError
            return _bounded(Fraction(repr(given)))
        case ast.Name(id=name) if name in _NAMES:
            return _NAMES[name]
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _value(inner)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=kind, right=right) if type(kind) in _OPERATORS:
            return _bounded(_OPERATORS[type(kind)](_value(left), _value(right)))
        case ast.Call(func=ast.Name(id=name), args=given, keywords=[]) if name in _FUNCTIONS:
            least, most, function = _FUNCTIONS[name]
            if not least <= len(given) <= most:
                raise CannotCalculate(f"{name} takes {least} to {most} numbers")
            return _bounded(function(*(_value(one) for one in given)))
    raise CannotCalculate("only numbers, + - * / // % **, parentheses and known functions are calculated with")


def _bounded(number: Number | int) -> Number:
    if isinstance(number, float):
        if not math.isfinite(number):
            raise OverflowError
        return number
    found = Fraction(number)
    if max(found.numerator.bit_length(), found.denominator.bit_length()) > MOST_BITS:
        raise OverflowError
    return found


def _power(base: Number, exponent: Number) -> Number:
    """Its size is known before it is computed."""
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if bits > 1 and (bits - 1) * abs(exponent.numerator) > MOST_BITS:
            raise OverflowError
        if abs(exponent.numerator) > 2**32:
            raise OverflowError
        return _bounded(base**exponent.numerator)
    found = float(base) ** float(exponent)
    if isinstance(found, complex):
        raise CannotCalculate("a root of a negative number")
    return _bounded(found)


def _rounded(number: Number, digits: Number = Fraction(0)) -> Number:
    if digits != int(digits) or not -300 <= digits <= 300:
        raise ValueError
    return Fraction(round(Fraction(number), int(digits)))


def _of_float(function: Callable[[float], float]) -> Callable[..., Number]:
    return lambda number: function(float(number))


def _logarithm(number: Number, base: Number | None = None) -> Number:
    return math.log(number) if base is None else math.log(number, base)


def _root(number: Number) -> Number:
    """Exact of squares."""
    if isinstance(number, Fraction) and number >= 0:
        upper, lower = math.isqrt(number.numerator), math.isqrt(number.denominator)
        if upper * upper == number.numerator and lower * lower == number.denominator:
            return Fraction(upper, lower)
    return math.sqrt(number)


_OPERATORS: Mapping[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_NAMES: Mapping[str, float] = {"pi": math.pi, "e": math.e}
_FUNCTIONS: Mapping[str, tuple[int, int, Callable[..., Number | int]]] = {
    "sqrt": (1, 1, _root),
    "abs": (1, 1, abs),
    "round": (1, 2, _rounded),
    "floor": (1, 1, math.floor),
    "ceil": (1, 1, math.ceil),
    "min": (2, 50, min),
    "max": (2, 50, max),
    "log": (1, 2, _logarithm),
    "log10": (1, 1, math.log10),
    "exp": (1, 1, _of_float(math.exp)),
    "sin": (1, 1, _of_float(math.sin)),
    "cos": (1, 1, _of_float(math.cos)),
    "tan": (1, 1, _of_float(math.tan)),
}


def _shown(number: Number) -> str:
    if isinstance(number, float):
        return str(int(number)) if number.is_integer() and abs(number) < 1e15 else f"{number:.15g}"
    if number.denominator == 1:
        return str(number.numerator)
    with localcontext(prec=_SHOWN):
        return f"{(Decimal(number.numerator) / Decimal(number.denominator)).normalize():f}"
